"""The command ``advisor``."""

from __future__ import annotations

import sys

from fslr.optional_dependencies import install_command


def main() -> None:
    """Run the command line."""
    try:
        from advisor.cli import app  # noqa: PLC0415 - a missing extra gets a clear message
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in {"advisor", "fslr"}:
            raise
        sys.exit(
            f"advisor: the package {package!r} is not installed; install the service: "
            f"{install_command('server')}"
        )
    app()


if __name__ == "__main__":
    main()
