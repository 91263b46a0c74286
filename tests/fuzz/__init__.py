"""Random and mutated messages to every method of the service: ``python -m tests.fuzz``."""
