"""The code blocks of a Markdown page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>not run)[^\n]*-->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced code block.

    Attributes:
        language: The language of the block.
        text: The contents of the block.
        is_run: Whether a test runs the block; false if the page marks it as not run.
        where: The page and the line, for error messages.
    """

    language: str
    text: str
    is_run: bool
    where: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced code blocks of a page in order."""
    text = page.read_text("utf-8")
    return [
        Block(
            found["language"],
            found["text"],
            found["mark"] is None,
            f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, found.start('text')) + 1}",
        )
        for found in _BLOCK.finditer(text)
    ]


def commands(page: Path) -> list[str]:
    """Return the lines of a page's shell blocks, with continued lines joined."""
    text = "\n".join(block.text for block in blocks(page) if block.language == "sh")
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.strip()]
