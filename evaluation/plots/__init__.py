"""Plots of checks: heat maps, panels, clustering."""
