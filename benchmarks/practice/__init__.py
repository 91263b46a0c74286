"""The practice benchmark: is advice safe and right on the recipes that people train with?

Each recipe is trained on a small and on a big model, plain and advised. No figures are rendered
here; :mod:`benchmarks.report` does that.
"""
