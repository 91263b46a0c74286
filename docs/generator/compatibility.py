"""The table of what works with which framework, collected from the tests.

``python -m docs.generator.compatibility`` writes it into docs/reference/compatibility.md. A test
that shows something is marked where it is defined::

    @pytest.mark.compatibility("Lightning", "record", "observe only")
    @pytest.mark.compatibility("DeepSpeed", "advised", refused="its backward pass makes the step")

The tests are read, not imported, so that no framework has to be installed.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from advisor.export.formats import FormatName
from docs.generator.markdown import table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "compatibility.md"
TRAINING: Final = (
    *("record", "advised", "observe only", "resume", "several processes", "accumulation"),
    *("mixed precision", "trackers", "weight decay"),
)
"""What can work with a framework, in the order of the columns."""
EXPORTING: Final = ("learning rates", "weight decay", "several optimizers")
"""What a format of ``advisor export`` can express, in the order of the columns."""
FRAMEWORKS: Final = (
    *("PyTorch loop", "DistributedDataParallel", "FSDP2", "Accelerate", "Hugging Face Trainer"),
    *("TRL", "Lightning", "LoRA with PEFT", "JAX", "Flax linen", "Flax nnx", "Equinox"),
    *("optax.MultiSteps", "jax.sharding", "Node.js", "DeepSpeed", "Megatron-LM"),
)
"""The rows of the table of trainings."""
FORMATS: Final = tuple(name.value for name in FormatName)
"""The rows of the table of exports: the formats of ``advisor export``."""
_MARK = "pytest.mark.compatibility"
_BLOCK = re.compile(
    r"(?<=<!-- compatibility -->\n).*?(?=<!-- /compatibility -->$)", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Shown:
    """What one test shows.

    Attributes:
        framework: The row of the table.
        feature: The column of the table.
        test: Name of the test function.
        file: The test's file, relative to the repository.
        refused: Why it does not work, if the test shows that it is refused; else empty.
    """

    framework: str
    feature: str
    test: str
    file: str
    refused: str = ""


def shown_by(tests: Path, root: Path = ROOT) -> list[Shown]:
    """Return what the marked tests show, in the order of their files.

    Args:
        tests: The folder of the tests.
        root: The folder that paths are relative to.

    Raises:
        ValueError: A mark names an unknown framework or feature, or is not on a test.
    """
    found: list[Shown] = []
    for path in sorted(tests.rglob("*.py")):
        text = path.read_text("utf-8")
        if _MARK in text:
            file = path.relative_to(root).as_posix()
            found += _of_file(ast.parse(text), file)
    return found


def _of_file(module: ast.Module, file: str) -> Iterator[Shown]:
    for node in ast.walk(module):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for mark in node.decorator_list:
            if not isinstance(mark, ast.Call) or ast.unparse(mark.func) != _MARK:
                continue
            where = f"{file}:{mark.lineno}"
            if isinstance(node, ast.ClassDef) or not node.name.startswith("test_"):
                raise ValueError(f"{where}: {node.name} is not a test; mark a test function")
            yield from _of_mark(mark, node.name, file, where)


def _of_mark(mark: ast.Call, test: str, file: str, where: str) -> Iterator[Shown]:
    try:
        framework, *features = [str(ast.literal_eval(each)) for each in mark.args]
        options = {str(each.arg): str(ast.literal_eval(each.value)) for each in mark.keywords}
    except ValueError:
        raise ValueError(
            f"{where}: write the framework and what the test shows as plain strings"
        ) from None
    refused = options.pop("refused", "")
    if options or not features:
        raise ValueError(
            f"{where}: the mark takes a framework, what the test shows, and refused='why'"
        )
    known = EXPORTING if framework in FORMATS else TRAINING
    if framework not in (*FRAMEWORKS, *FORMATS):
        raise ValueError(
            f"{where}: {framework!r} is not a row of the table; use one of "
            f"{', '.join((*FRAMEWORKS, *FORMATS))}, or add it to {Path(__file__).name}"
        )
    for feature in features:
        if feature not in known:
            raise ValueError(
                f"{where}: {feature!r} is not a column of the table of {framework}; use one of "
                f"{', '.join(known)}"
            )
        yield Shown(framework, feature, test, file, refused)


def tables(found: Sequence[Shown]) -> str:
    """Return both tables, the reasons of refusals, and the tests behind each cell, as Markdown.

    Args:
        found: What the tests show.

    Raises:
        ValueError: One test shows that something works, and a different one that it is refused; or
            a row has no test.
    """
    cells: defaultdict[tuple[str, str], list[Shown]] = defaultdict(list)
    for each in found:
        cells[each.framework, each.feature].append(each)
    for (framework, feature), tests in cells.items():
        if len({bool(each.refused) for each in tests}) > 1:
            raise ValueError(
                f"tests disagree on whether {feature!r} works with {framework}: "
                f"{', '.join(each.test for each in tests)}"
            )
    rows = (*FRAMEWORKS, *FORMATS)
    if missing := [row for row in rows if not any(row == key for key, _ in cells)]:
        raise ValueError(f"no test is marked for {', '.join(missing)}; mark one or drop the row")
    parts = [
        *("## Trainings", _matrix("framework", FRAMEWORKS, TRAINING, cells)),
        _refusals("framework", FRAMEWORKS, cells),
        *("## Exports", _matrix("format", FORMATS, EXPORTING, cells)),
        _refusals("format", FORMATS, cells),
        *("## Tests", _tests(found)),
    ]
    return "\n\n".join(part for part in parts if part)


def _matrix(
    head: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Mapping[tuple[str, str], Sequence[Shown]],
) -> str:
    def cell(row: str, column: str) -> str:
        tests = cells.get((row, column), ())
        return "" if not tests else "no" if tests[0].refused else "yes"

    lines = [(row, *(cell(row, column) for column in columns)) for row in rows]
    return table((head, *columns), lines)


def _refusals(
    head: str, rows: Sequence[str], cells: Mapping[tuple[str, str], Sequence[Shown]]
) -> str:
    reasons: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for (row, column), tests in cells.items():
        if row in rows and tests[0].refused:
            reasons[row, tests[0].refused].append(column)
    order = sorted(reasons, key=lambda key: rows.index(key[0]))
    lines = [(key[0], ", ".join(reasons[key]), key[1]) for key in order]
    return table((head, "no", "reason"), lines) if lines else ""


def _tests(found: Sequence[Shown]) -> str:
    order = (*FRAMEWORKS, *FORMATS, *TRAINING, *EXPORTING)
    shown: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for each in sorted(found, key=lambda each: order.index(each.feature)):
        shown[each.framework, _link(each)].append(each.feature)
    keys = sorted(shown, key=lambda key: (order.index(key[0]), key[1]))
    lines = [(key[0], ", ".join(shown[key]), key[1]) for key in keys]
    return table(("framework or format", "what", "shown by"), lines)


def _link(shown: Shown) -> str:
    return f"[`{shown.test}`](../../{shown.file})"


def rendered(page: str, found: Sequence[Shown]) -> str:
    """Return the page with its tables made anew.

    Args:
        page: The page.
        found: What the tests show.

    Raises:
        ValueError: The page has no place for the tables; or as for :func:`tables`.
    """
    if not _BLOCK.search(page):
        raise ValueError(
            "the page needs the lines <!-- compatibility --> and <!-- /compatibility -->"
        )
    return _BLOCK.sub(lambda _: f"{tables(found)}\n", page)


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text("utf-8"), shown_by(ROOT / "tests")), "utf-8")
    print(f"{PAGE.relative_to(ROOT)} is up to date")
