"""The advisor on one machine: in the training process, or as a service process beside it.

For users without a deployment, demos and tests. The service itself must not import it.
"""
