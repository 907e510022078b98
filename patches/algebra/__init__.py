"""The exact algebra: increments on a grid, sets of them, their composition, protected subspaces."""
