"""Metrics, logs and traces of the service.

The names of metrics and spans live here; code that is observed does not.
"""
