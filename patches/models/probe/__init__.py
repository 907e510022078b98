"""What of a denoiser reads text alone: found by running it, never taken from a table."""
