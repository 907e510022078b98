"""What may be believed: verified patches, key files, checks of the registry's own patches."""
