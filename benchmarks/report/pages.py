"""The blocks of figures by name, and the pages with their blocks rendered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from benchmarks.markdown import wrapped
from benchmarks.report import measuring_tables, sentences, service_tables, tables
from benchmarks.report.adapters import adapters
from benchmarks.report.blocks import with_blocks
from benchmarks.report.optimizers import optimizers
from benchmarks.report.stored import Figures
from benchmarks.report.verdicts import claiming_cases, verdict_sentence
from benchmarks.report.which_method import which_method

_Renderer = Callable[..., str]

BLOCKS: Final[dict[str, tuple[_Renderer, tuple[str, ...]]]] = {
    "demo-setup": (sentences.demo_setup, ("demo",)),
    "demo": (tables.demo, ("demo",)),
    "demo-outcome": (sentences.demo_outcome, ("demo",)),
    "transfer-cases": (claiming_cases, ("transfer",)),
    "transfer": (tables.transfer, ("transfer",)),
    "verdicts": (verdict_sentence, ("transfer",)),
    "larger-case": (sentences.larger_case, ("transfer-larger",)),
    "which-method": (which_method, ("transfer",)),
    "measuring-cost": (sentences.measuring_cost, ("overhead",)),
    "practice": (sentences.practice, ("practice",)),
    "summary": (measuring_tables.summary, ("estimator", "overhead")),
    "summary-source": (sentences.summary_source, ("estimator",)),
    "measuring-machine": (sentences.measuring_machine, ("estimator",)),
    "estimator": (measuring_tables.estimator, ("estimator",)),
    "estimator-columns": (sentences.estimator_columns, ("estimator",)),
    "measurements": (measuring_tables.measurements, ("measurements",)),
    "overhead": (measuring_tables.overhead, ("overhead",)),
    "measuring": (measuring_tables.measuring, ("scaling",)),
    "stepping": (measuring_tables.stepping, ("scaling",)),
    "stepping-cost": (sentences.stepping_cost, ("scaling",)),
    "defaults": (tables.defaults, ("ablations",)),
    "references": (tables.references, ("references",)),
    "warm-ups": (tables.warm_ups, ("warm-ups",)),
    "adapters": (adapters, ("adapters",)),
    "optimizers": (optimizers, ("optimizers",)),
    "registry": (service_tables.registry, ("registry",)),
    "registry-source": (sentences.registry_source, ("registry",)),
    "sizing": (service_tables.sizing, ("rpc",)),
    "sizing-source": (sentences.sizing_source, ("rpc",)),
    "comparison": (service_tables.comparison, ("rpc",)),
}
"""How to render each block, and the files whose figures it shows."""


def render_block(name: str, figures: Mapping[str, Figures]) -> str:
    """Return the content of a block.

    Args:
        name: A key of :data:`BLOCKS`.
        figures: The stored figures, as :func:`load_figures` returns them.

    Raises:
        ValueError: There is no such block, or its figures are not stored.
    """
    if name not in BLOCKS:
        raise ValueError(f"no block is named {name!r}; use one of {', '.join(BLOCKS)}")
    render, files = BLOCKS[name]
    if missing := [file for file in files if file not in figures]:
        raise ValueError(f"the block {name!r} needs the figures of {', '.join(missing)}")
    return wrapped(render(*(figures[file] for file in files)))


def render_page(page: str, figures: Mapping[str, Figures]) -> str:
    """Return a page with its blocks rendered from the stored figures.

    Args:
        page: The page.
        figures: The stored figures, as :func:`load_figures` returns them.

    Raises:
        ValueError: A block is malformed or unknown, or its figures are not stored.
    """
    return with_blocks(page, lambda name: render_block(name, figures))
