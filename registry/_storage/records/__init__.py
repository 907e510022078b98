"""The values that leave the registry and enter it, and what they must look like."""
