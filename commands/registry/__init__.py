"""Commands about the registry as a whole: make it, see what it holds and where it stands, keep it tidy."""
