"""The framework-free core of a training client: estimates, averages, asking for all ranks.

It uses numpy and protobuf only; it must not import torch, jax or grpc.
"""
