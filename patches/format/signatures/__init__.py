"""Who vouches for the files of a patch: keys, DSSE envelopes, in-toto statements, model signatures."""
