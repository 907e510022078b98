"""The command line, one module a noun, in rooms by what its user does: parse, call one function, print."""
