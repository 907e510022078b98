"""The calls that move models and stacks, and say what is applied."""
