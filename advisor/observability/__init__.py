"""Metrics, logs and traces of the service.

The definitions of metrics, the log format and the export of traces live here; the code that records
them does not.
"""
