"""Margin of options and perpetuals together: revalue all of them in a grid of scenarios."""
