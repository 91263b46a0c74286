"""``advisor backup``: the embedded Redis's data in one file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from advisor.cli.common import fail, plain, say
from advisor.server.settings import Settings
from advisor.store.backup import BackupError, write_backup

_STDOUT = Path("-")


def backup(
    output: Annotated[
        Path, typer.Argument(metavar="FILE", help="A tar archive; - writes it to standard output.")
    ],
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="ADVISOR_DATA_DIR",
            help="The service's data directory. Default: that of a service without --data-dir.",
        ),
    ] = None,
) -> None:
    """Copy the embedded Redis's data while the service runs, or while it does not.

    To restore: unpack the archive into a new, empty directory, and serve with it as --data-dir.
    """
    source = data_dir or Settings.model_construct().data_dir
    try:
        if output == _STDOUT:
            if sys.stdout.isatty():
                fail("the archive is no text; name a file, or send - into one")
            write_backup(source, sys.stdout.buffer)
            return
        if output.is_dir():
            fail(f"{output} cannot be written: it is a directory; name another file")
        beside = output.with_name(output.name + ".new")
        try:
            beside.touch(mode=0o600)
            with beside.open("wb") as file:
                size = write_backup(source, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(output)  # nobody ever takes half of it for a whole one
        finally:
            beside.unlink(missing_ok=True)
    except BackupError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror}; name another file")
    say(f"wrote [bold]{plain(str(output))}[/]  {size} bytes from {plain(str(source))}")
