"""Composition roots: they put the parts together, and they alone read the environment, the clock and chance."""
