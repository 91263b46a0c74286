"""The framework-free core of a training client: when to measure, what to send, what to adopt.

It uses numpy and protobuf only; it must not import torch, jax or grpc.
"""
