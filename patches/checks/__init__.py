"""The composer's checks, from stored data alone: promises, pairs, whole stacks, removal."""
