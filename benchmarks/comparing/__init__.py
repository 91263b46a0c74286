"""Comparison of two sets of figures: what got better or worse beyond noise."""
