"""The calls of a model during a training: noticed, and kept until the step that they belong to.

Nothing here calls the model, and nothing changes what a call returns.
"""
