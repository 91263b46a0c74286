"""The framework-free core of a training client: when to measure, asking, recording, events.

It uses numpy and protobuf only; it must not import torch, jax or grpc.
"""
