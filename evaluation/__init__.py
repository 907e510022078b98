"""Seeing what a patch does: pictures at fixed seeds, a classifier's opinion of them, and labelled grids."""
