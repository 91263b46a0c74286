"""Who may call, as which role, and how much: tokens, certificate roles, quotas.

It knows neither gRPC nor Redis.
"""
