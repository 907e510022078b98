"""Approvals of patches and plans, and what is refused without them."""
