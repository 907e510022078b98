"""The calls of a registry, a module for each of the things they are about; `rasura.api.registry` has them all."""
