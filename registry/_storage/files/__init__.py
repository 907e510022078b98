"""Files beside the database: blobs, cache, personal data of cases, what dead processes left."""
