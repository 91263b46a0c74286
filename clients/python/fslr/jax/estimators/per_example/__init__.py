"""The per_example estimator: parameters are followed through the traced function."""
