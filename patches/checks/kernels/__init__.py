"""The numbers that checks are made of: small matrices a patch, and products of them."""
