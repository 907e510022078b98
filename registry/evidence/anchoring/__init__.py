"""Anchors: somebody outside saw this tree of the log, and when."""
