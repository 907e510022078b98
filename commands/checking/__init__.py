"""Commands that ask whether patches are good: checks and their policy, pictures, which patch does harm."""
