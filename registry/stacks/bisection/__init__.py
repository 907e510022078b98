"""Which patch of a stack does harm: bisection, and how far one is."""
