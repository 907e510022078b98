"""What a stack does to parameters, without torch: its layers, their bounds and their exact sums as arrays."""
