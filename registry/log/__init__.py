"""The audit log: entries, Merkle tree, signed checkpoints, replay, verification."""
