"""All names of a concept and what a search finds, erased together within a bound on what else is disturbed."""
