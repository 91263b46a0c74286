"""The service process: settings, the composition root, workers, readiness.

Only this package builds the object graph. The handling of calls belongs to ``advisor.rpc``.
"""
