"""The service process: settings, the composition root, workers, readiness.

Only this package builds the object graph. What one call does belongs to ``advisor.rpc``.
"""
