"""A write that is all there or not at all: what was there before is kept first, and put back by whoever comes next."""
