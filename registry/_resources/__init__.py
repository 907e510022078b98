"""What a registry holds, one module a noun: what the registry does with it, and below, its rows in and records out.

The functions on rows take the session of a transaction that somebody else began. Those that add give the change for the
audit log, or None where the same thing is there already.
"""
