"""Keys of people: files, tokens and services that keep them, their passwords, and their revocation."""
