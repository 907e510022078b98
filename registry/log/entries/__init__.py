"""One entry of the log: its bytes, the digests in it, and what it tells of records, errors and signers."""
