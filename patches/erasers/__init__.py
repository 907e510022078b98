"""Erasers: ways of choosing the detector A and the response B of one increment a concept, one file a method."""
