"""Attacks: prompts that bring an erased concept back."""
