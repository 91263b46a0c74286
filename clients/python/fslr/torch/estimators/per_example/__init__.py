"""The per-example estimator: it follows parameters through functions and projects per example.

Code that all estimators share belongs one folder up.
"""
