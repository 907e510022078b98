"""The page of a repository of patches: what it says, of whom it knows that, and how it is read again."""
