"""Copies the pages to where the site is built from, and puts the generated parts into them.

Three things are changed on the way: a line ``<!-- generated: NAME -->`` becomes what
:mod:`docs.generator.reference` makes of the code; a link to a file outside of ``docs/`` leads to a
copy of that file, so that the site is complete without a repository at hand; and a link to a
directory outside of ``docs/`` becomes plain text.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from docs.generator.reference import PARTS

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)\s#]+)(#[^)\s]*)?\)")
_PART = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.MULTILINE)
_COPIED = "repository"  # the folder of the site with copies of files outside of docs/


def stage(root: Path, target: Path) -> None:
    """Write the configuration and all pages, ready to be built.

    Args:
        root: The repository.
        target: Where to write; emptied first.
    """
    shutil.rmtree(target, ignore_errors=True)
    pages = target / "pages"
    docs = root / "docs"
    for source in sorted(docs.rglob("*")):
        path = source.relative_to(docs)
        if source.is_dir() or path.parts[0] == "generator":
            continue
        (pages / path).parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            text = with_parts(source.read_text("utf-8"), root)
            (pages / path).write_text(_with_local_links(text, source, root, pages), "utf-8")
        elif source.suffix != ".toml":
            shutil.copy(source, pages / path)
    changelog = root / "CHANGELOG.md"
    text = _with_local_links(changelog.read_text("utf-8"), changelog, root, pages)
    (pages / "changelog.md").write_text(text, "utf-8")
    shutil.copy(docs / "zensical.toml", target / "zensical.toml")


def with_parts(text: str, root: Path) -> str:
    """Return a page with its generated parts.

    Args:
        text: The page.
        root: The repository.

    Raises:
        KeyError: No generated part has that name.
    """
    return _PART.sub(lambda found: PARTS[found[1]](root), text)


def _with_local_links(text: str, source: Path, root: Path, pages: Path) -> str:
    docs = root / "docs"
    page = Path("changelog.md") if source.parent == root else source.relative_to(docs)

    def local(found: re.Match[str]) -> str:
        mark, words, link, anchor = found[1], found[2], found[3], found[4] or ""
        aim = Path(os.path.normpath(source.parent / link))
        if aim.is_relative_to(docs):
            path = aim.relative_to(docs)
        elif aim == root / "CHANGELOG.md":
            path = Path("changelog.md")
        elif aim.is_file():
            path = Path(_COPIED, aim.relative_to(root))
            # As text, so that browsers show it; Markdown would become a page.
            path = path if _is_shown(path) else path.with_name(f"{path.name}.txt")
            (pages / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(aim, pages / path)
        elif aim.is_dir():
            return words if words.startswith("`") else f"{words} (`{aim.relative_to(root)}/`)"
        else:
            return found[0]  # broken: the build reports it
        relative = Path(os.path.relpath(path, page.parent))
        return f"{mark}[{words}]({relative.as_posix()}{anchor})"

    return _outside_of_code(text, lambda prose: _LINK.sub(local, prose))


def _is_shown(path: Path) -> bool:
    return path.suffix in {".json", ".png", ".svg", ".txt"}


def _outside_of_code(text: str, change: Callable[[str], str]) -> str:
    """Return the text with its prose changed and its fenced code blocks unchanged."""
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else change(part) for part in parts)
