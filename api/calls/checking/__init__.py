"""The calls that ask whether patches are good: checks and their policy, pictures."""
