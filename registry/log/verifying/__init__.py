"""The walk through a log that verifies it: what is stored of each entry, what that says, and whether it is sound."""
