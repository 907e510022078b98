"""The report of a case, a stack or a model, for people who know nothing of tensors; signed, and one file."""
