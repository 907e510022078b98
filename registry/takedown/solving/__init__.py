"""Solving what a takedown asks for beside what is erased already."""
