"""Judges: who says what a picture shows."""
