"""The gRPC side of the service: servicers, authorization, limits, batching, tracing of calls.

Servicers only decode, call the domain and encode; decisions and storage live elsewhere.
"""
