"""A PyTorch model as a measurement sees it: forward passes, batches, groups, snapshots.

Nothing here estimates a rate or knows an advisor.
"""
