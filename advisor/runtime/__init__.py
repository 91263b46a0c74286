"""Processes and the event loop: small additions to the standard library for every part.

Nothing here knows what the service does.
"""
