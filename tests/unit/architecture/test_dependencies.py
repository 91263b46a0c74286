"""The policy stays pure: it imports numpy and the standard library's pure parts alone."""

from __future__ import annotations

import ast
from pathlib import Path

import advisor.policy

_ALLOWED = {
    *("__future__", "bisect", "collections", "dataclasses", "enum", "functools", "math", "numpy"),
    *("itertools", "re"),
}


def test_the_policy_imports_nothing_of_ours_and_no_io() -> None:
    found = set()
    for path in Path(advisor.policy.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module or "")
    outside = {name for name in found if not name.startswith("advisor.policy")}
    assert {name.split(".")[0] for name in outside} <= _ALLOWED


def test_the_client_never_imports_the_service() -> None:
    import fslr

    for path in Path(fslr.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names.append(node.module or "")
            assert not [n for n in names if n.split(".")[0] == "advisor"], path
