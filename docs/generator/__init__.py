"""Builds the documentation site: stages pages, generates the reference, checks links.

``python -m docs.generator`` is ``make docs``. Nothing here is installed with the package.
"""
