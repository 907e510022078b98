"""Signed notes, checkpoints and cosignatures: the C2SP documents of a log."""
