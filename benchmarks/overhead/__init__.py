"""``python -m benchmarks overhead``: what measuring adds to a training, by two procedures.

All trainings advance side by side, so that each step has a plain step next to it. One of them is a
control: a second plain training, whose difference from the first is the noise of the comparison.
"""
