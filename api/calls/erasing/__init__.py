"""The calls that make patches: erase, take down, adopt, solve anew."""
