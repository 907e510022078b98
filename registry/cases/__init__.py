"""Cases: from a request to what was done about it, with its clock, and its personal data outside the log."""
