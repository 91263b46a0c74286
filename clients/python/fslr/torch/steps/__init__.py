"""The steps of PyTorch optimizers: the hooks around them, and how multipliers scale them.

What a step does to a model's outputs is not measured here.
"""
