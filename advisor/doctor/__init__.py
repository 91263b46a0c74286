"""Checks a deployment from the outside, as a training job reaches it.

Network access is in ``network`` and ``examination``; ``rules`` judges what they found, and is pure.
"""
