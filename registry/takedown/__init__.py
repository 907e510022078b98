"""Takedowns: from a request to a model that no longer draws it, beside everything that is erased already."""
