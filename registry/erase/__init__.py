"""Erasing, and solving anew, with the registry's bases, keys and log."""
