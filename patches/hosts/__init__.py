"""Hosts: the models that a stack of patches is applied to, on disk and in memory."""
