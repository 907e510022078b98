"""Where the tensors of a model lie: in a diffusers folder, or in a single file with its own names."""
