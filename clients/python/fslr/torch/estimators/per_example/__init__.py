"""The per-example estimator: it follows parameters through functions and projects per example.

What every estimator shares lives one folder up.
"""
