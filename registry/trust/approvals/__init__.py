"""Who may approve what, as a signed policy says, and what they approved."""
