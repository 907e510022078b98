"""Commands that take patches elsewhere: the Hub, one file for a colleague, files for other programs."""
