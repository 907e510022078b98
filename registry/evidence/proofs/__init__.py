"""Entries of the log that leave it with their proofs, in files that are checked with a public key alone."""
