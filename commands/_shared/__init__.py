"""What all commands share: options, the registry that is meant, lists and documents, and the only place that prints."""
