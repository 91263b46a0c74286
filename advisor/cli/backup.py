"""``advisor backup``: copy the embedded Redis's data to one file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from advisor.cli.common import STDOUT, fail, note, plain, say
from advisor.cli.progress import progress
from advisor.server.settings import Settings
from advisor.store.backup import BackupError, write_backup


def backup(
    output: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The tar archive to write; - for standard output."),
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it exists.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="ADVISOR_DATA_DIR",
            help="The service's data directory. Default: the one that `advisor serve` uses.",
        ),
    ] = None,
) -> None:
    """Back up the embedded Redis's data. The service may be running.

    To restore, unpack the archive into an empty directory and start the service with it as
    --data-dir.
    """
    source = data_dir or Settings.model_construct().data_dir
    if data_dir is None:
        note(f"reading {source}, the default data directory; --data-dir names a different one")
    try:
        if output == STDOUT:
            if sys.stdout.isatty():
                fail("the archive is binary; name a file, or redirect standard output to one")
            with progress("writing the archive"):
                write_backup(source, sys.stdout.buffer)
            return
        if output.is_dir():
            fail(f"{output} cannot be written: it is a directory; choose a different file")
        if output.exists() and not overwrite:
            fail(f"{output} exists; choose a different file, or replace it with --overwrite")
        temporary = output.with_name(output.name + ".new")
        try:
            temporary.touch(mode=0o600)
            with temporary.open("wb") as file:
                with progress(f"writing {output}"):
                    size = write_backup(source, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(output)  # so that an incomplete archive never has this name
        finally:
            temporary.unlink(missing_ok=True)
    except BackupError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{output} cannot be written: {error.strerror}; choose a different file")
    say(f"wrote [bold]{plain(str(output))}[/]: {size} bytes from {plain(str(source))}")
