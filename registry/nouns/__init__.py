"""What a registry can do, one module a noun: `rasura.registry.registry.Registry` is all of them together."""
