"""Errors of exports."""

from __future__ import annotations


class ExportError(ValueError):
    """There is nothing to export, or a format needs a value that is not given."""
