"""Models in memory: torch modules, written in place between two forwards."""
