"""The gRPC client of the service: calls, streams, TLS, tokens.

Nothing here knows what a training job is.
"""
