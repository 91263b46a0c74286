"""Injects faults while clients work, and checks the answers that they got against a model.

See ``python -m tests.chaos --help``. A run appends its history to a file, reads the registry back
at the end, and then checks only the file; ``--check FILE`` checks it again.
"""
