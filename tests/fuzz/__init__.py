"""Fuzzing of every method: strategies for requests, a service, and checks of its answers."""
