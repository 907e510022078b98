"""Live models: `rasura.attach` and its handle."""
