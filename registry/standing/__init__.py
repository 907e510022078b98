"""A registry as a whole: where it stands, what happened lately, the last motion taken back, what nothing needs."""
