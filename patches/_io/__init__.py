"""Bytes: canonical JSON, safetensors, regular files, byte ranges, locks, threads."""
