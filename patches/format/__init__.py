"""The patch as files: manifest, tensors, signature, and what other programs read."""
