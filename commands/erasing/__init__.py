"""Commands that make patches: erase, take down, adopt, solve anew; what erasers there are."""
