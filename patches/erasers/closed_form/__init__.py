"""Erasers that solve one linear system: null space, SPEED, UCE, RECE."""
