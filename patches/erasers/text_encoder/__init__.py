"""Erasers that rewrite the CLIP text encoder's feed-forward layers."""
