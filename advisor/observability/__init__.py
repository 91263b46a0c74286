"""Metrics, logs and traces of the service.

What is measured and named lives here; what causes it does not.
"""
