"""``python -m benchmarks optimizers``: whether multipliers act on every optimizer that there is.

A step is judged by what happened to the weights. Nothing here asks the client how it scales a step,
and no optimizer outside PyTorch is a dependency: packages that are not installed are named.
"""
