"""Stacks, their versions, lock files, plans, policies, bisection."""
