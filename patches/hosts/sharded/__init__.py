"""Models that are sharded over processes: each writes its own shard."""
