"""What got worse between two sets of figures, beyond noise."""
