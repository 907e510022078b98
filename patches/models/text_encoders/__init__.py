"""Prompts become embeddings: tokenizers, text encoders, a pipeline's own way of reading."""
