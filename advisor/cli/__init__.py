"""The command line ``advisor``."""

from advisor.cli.app import app

__all__ = ["app"]
