"""Prompts: of concepts, of retain sets, and those that lie near."""
