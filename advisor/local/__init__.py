"""The advisor on one machine: in the training process, or as a service process beside it.

It serves people without a deployment, demos and tests; the service itself must not import it.
"""
