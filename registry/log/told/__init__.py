"""What the log tells of each row: the index of it, and the comparison of rows with it."""
