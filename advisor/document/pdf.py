"""Prints a page to PDF with Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_NAMES = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"),
    "microsoft-edge",
)
_DEADLINE_S = 120.0
_MAX_SHOWN = 400  # characters of what Chromium printed


class PdfError(Exception):
    """A page was not printed."""


def print_to_pdf(page: Path, output: Path) -> None:
    """Print an HTML file to a PDF file of A4 pages.

    Args:
        page: The HTML file.
        output: The PDF file; it is replaced.

    Raises:
        PdfError: There is no Chromium, or it did not print the page.
    """
    browser = next(filter(None, map(shutil.which, _NAMES)), None)
    if browser is None:
        raise PdfError(
            "no Chromium was found, which prints the PDF; install it (on Debian: apt install "
            f"chromium), or open {page} in a browser and print it there"
        )
    try:
        output.unlink(missing_ok=True)  # an earlier one must not be taken for this one
    except OSError as error:
        raise PdfError(f"{output} cannot be replaced: {error.strerror}") from error
    with tempfile.TemporaryDirectory(prefix="advisor-") as profile:
        command = [
            browser,
            "--headless",
            "--disable-gpu",
            "--no-pdf-header-footer",
            f"--user-data-dir={profile}",
            f"--print-to-pdf={output.absolute()}",
            page.absolute().as_uri(),
        ]
        if os.geteuid() == 0:  # as root, Chromium does not start with its sandbox
            command.insert(1, "--no-sandbox")
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_DEADLINE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PdfError(f"{browser} did not print {page}: {error}") from error
    if done.returncode or not output.is_file():
        why = done.stderr.strip()[-_MAX_SHOWN:] or "it printed no reason"
        raise PdfError(f"{browser} did not print {page} (status {done.returncode}): {why}")
