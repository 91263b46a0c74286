"""The practice benchmark: is advice safe and right in common training setups?

Each setup is trained on a small and on a big model, plain and advised. No figures are rendered
here; :mod:`benchmarks.report` does that.
"""
