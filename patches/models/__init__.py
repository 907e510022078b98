"""What is read of a model: its family, its identity, its text encoders, its denoiser."""
