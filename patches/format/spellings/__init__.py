"""What checkpoints and LoRA files call a denoiser's parameters where diffusers is not asked: native names."""
