"""What a measurement needs of a PyTorch model: forward passes, batches, groups, snapshots.

Nothing here estimates a rate or knows an advisor.
"""
