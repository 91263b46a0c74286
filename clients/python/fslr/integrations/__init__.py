"""Connects attachments and recorders to the trainers that people use, one module each.

A module here finds the model, the optimizer and the place in the checkpoint, and leaves measuring,
scaling and asking to ``fslr.torch``. It imports its package when it is imported, and none is
imported here.
"""
