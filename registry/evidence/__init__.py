"""What leaves the registry for people who have nothing of it: entries with proofs, bundles, statements."""
