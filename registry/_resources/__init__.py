"""What a registry holds, one module a noun."""
