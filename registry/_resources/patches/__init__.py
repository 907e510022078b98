"""Patches: their rows, their files, and the signatures over them."""
