"""What a registry can do, one module a noun: `rasura.registry.store.Registry` is all of them together."""
