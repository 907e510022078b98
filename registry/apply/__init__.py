"""Moving a host from the set that is applied to the set that is wanted."""
