"""Bundles: patches for a colleague in one file."""
