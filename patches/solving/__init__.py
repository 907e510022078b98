"""From a request to patches: encode, solve, measure, describe; and again from a manifest."""
