"""Connections, tables, their schema, and finding one row by what a person types."""
