"""Where it is kept: database, blobs, files."""
