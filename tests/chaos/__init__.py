"""Faults are injected under clients at work, and what they were told is checked against a model.

``python -m tests.chaos --help``. A run writes its history to a file as it goes, reads the registry
back at its end, and judges the file alone: ``--check FILE`` judges it again.
"""
