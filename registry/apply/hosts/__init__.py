"""What is applied to a host, what is really there, and what of it runs beside quantised layers."""
