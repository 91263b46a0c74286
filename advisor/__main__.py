"""The command ``advisor``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from advisor.cli import app  # noqa: PLC0415 - its absence has an answer of its own
    except ModuleNotFoundError as error:
        sys.exit(
            f"advisor: the module {error.name!r} is missing; install the service with "
            "pip install 'fslr-advisor[server]'"
        )
    app()


if __name__ == "__main__":
    main()
