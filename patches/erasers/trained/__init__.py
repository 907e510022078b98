"""Erasers that train: SepME and All but One."""
