"""The store: Redis, whether a real one or the embedded server. There is no other implementation."""
