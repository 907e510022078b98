"""Commands that move models and stacks: apply, switch, revert, undo, and what a switch would change."""
