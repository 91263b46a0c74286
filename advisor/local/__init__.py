"""The advisor on one machine: in the training process, or as a service process beside it.

For people without a deployment, for demos and for tests; a deployed service never imports it.
"""
