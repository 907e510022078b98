"""Models with quantised layers: what is erased runs beside them."""
