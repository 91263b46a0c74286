"""The service process: settings, the composition root, workers, readiness.

Only this package builds the object graph; nothing but the command line imports it.
"""
