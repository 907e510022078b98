"""One module a noun: rows in, records out. All take the session of a transaction that somebody else began.

`insert` functions give the change for the audit log, or None where the same thing is there already.
"""
