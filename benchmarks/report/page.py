"""``docs/explanation/results.md``: one section a claim, from the files that there are."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.markdown import number, table
from benchmarks.report import pictures, transfer
from benchmarks.report.tables import table_of

PAGE = Path("docs/explanation/results.md")
PICTURES = Path("docs/images/results")

_OPENING = """\
# Results

What the documentation claims, measured: figures, the commands that they come from, and on what
machine. This page and its pictures are written by `make results` from the files in
[benchmarks/results](../../benchmarks/results), never by hand; `make results-measure` measures all
anew but what compares with other services and what injects faults (their commands are below), and
`python -m benchmarks compare OLD NEW` says what got worse beyond noise."""

_CLOSING = """\
Files whose parts can be measured one by one have the commit of each. What a file lacks was not
recorded."""
_PARTS = ("cases", "ablations", "ideas")  # what may have a commit of its own


@dataclass(frozen=True, slots=True)
class _Section:
    """A section of the page.

    Attributes:
        file: Its figures, without ending.
        title: Its heading.
        render: Makes the text from the figures and the folder that they lie in.
    """

    file: str
    title: str
    render: Callable[[dict[str, Any], Path], str]


def _of_figures(render: Callable[[Mapping[str, Any]], str]) -> Callable[[Any, Path], str]:
    return lambda figures, _: render(figures)


def _estimators(figures: dict[str, Any], folder: Path) -> str:
    return (
        f"Each tensor's rate, estimated from one probe {figures['measurements']} times, against "
        "the exact one. `per_example` is ours, `kronecker` the paper's; "
        "[measurement.md](measurement.md#which-estimator) says what the columns mean.\n\n"
        + table_of("estimator", folder)
    )


def _overhead(figures: dict[str, Any], folder: Path) -> str:
    ours, paper = figures["ours"], figures["paper"]
    return (
        f"Time that measuring adds to a training: {number(ours['overhead'], '+.1%')} with ours, "
        f"{number(paper['overhead'], '+.1%')} by the paper's procedure, for rates of "
        f"{number(ours['relative_error'], '.2f')} and {number(paper['relative_error'], '.2f')} "
        "relative error; [more](measurement.md#what-it-costs).\n\n" + table_of("overhead", folder)
    )


def _scaling(_: dict[str, Any], folder: Path) -> str:
    return (
        "A measurement of a residual MLP on 64 examples:\n\n"
        + table_of("measuring", folder)
        + "\n\nAn optimizer step that scales each tensor's learning rate, 4096 elements a tensor:"
        "\n\n" + table_of("stepping", folder)
    )


def _registry(_: dict[str, Any], folder: Path) -> str:
    words = "Times with many profiles stored, over those with few:"
    return f"{words}\n\n{table_of('registry', folder)}"


def _rpc(figures: dict[str, Any], folder: Path) -> str:
    stream, cores = figures["stream"], figures["cores"]
    beside = "In turns with a server that answers the same bytes and does nothing else, and"
    return (
        f"{stream['sent']:,} measurements sent through streams, {stream['lost']:,} of them not "
        f"stored, on {cores} cores that service, Redis and load share; what follows from it is in "
        "[size.md](../how-to/size.md#sizing).\n\n"
        + table_of("sizing", folder)
        + f"\n\n{beside} beside other services:\n\n"
        + table_of("beside", folder)
    )


def _chaos(figures: dict[str, Any], _: Path) -> str:
    words = (
        f"Clients register, move aliases and stream measurements while {figures['faults']:,} "
        "faults are injected: Redis killed, frozen and started again, the service killed, frozen "
        "and stopped, connections cut, delayed, held and throttled, answers swallowed; on a Redis "
        f"alone, on Sentinels and on a Cluster of three. Of {figures['operations']:,} operations:"
    )
    rows = [
        ("acknowledged writes lost", figures["lost"]),
        ("version numbers given twice", figures["doubled"]),
        ("recommendations from another version than the one named", figures["wrong_version"]),
        ("multipliers not finite or out of bounds", figures["non_finite"]),
        ("training steps that waited beyond the deadline", figures["blocked"]),
    ]
    return f"{words}\n\n{table(('', 'found'), [(name, f'{found:,}') for name, found in rows])}"


def _fuzz(figures: dict[str, Any], _: Path) -> str:
    words = (
        f"{figures['inputs']:,} random and mutated messages to all {figures['methods']} methods, "
        "through a raw channel:"
    )
    rows = [
        ("answers INTERNAL or UNKNOWN", figures["internal"]),
        ("crashes", figures["crashes"]),
        ("other answers than the contract has", figures["unexpected"]),
        ("memory that the service grew by, KiB", figures["kib_growth"]),
    ]
    return f"{words}\n\n{table(('', 'found'), [(name, f'{found:,}') for name, found in rows])}"


def _demo(figures: dict[str, Any], folder: Path) -> str:
    sweep = table(
        ("learning rate", "loss of the base, nats a character"),
        [(rate, number(loss)) for rate, loss in figures["sweep"].items()],
    )
    return (
        f"A character GPT of {figures['blocks']} blocks, {figures['steps']} steps of Adam, one "
        f"seed, {number(figures['seconds'], '.0f')} s for all of it. Advised ends "
        f"{number(figures['gain'], '.2f')} nats below plain, with multipliers between "
        f"{number(figures['multiplier_min'], '.2g')} and "
        f"{number(figures['multiplier_max'], '.2g')}.\n\n"
        + table_of("demo", folder)
        + f"\n\nThe sweep that found {figures['learning_rate']:g}:\n\n{sweep}\n\n"
        "The pictures are the run's own: training losses, and rates of each layer.\n\n"
        "![Training losses of base, plain and advised](../images/demo-losses.png)\n\n"
        "![Rates of each layer: base, plain and advised](../images/demo-rates.png)"
    )


_SECTIONS = (
    _Section("transfer", "Tuned small, used big", _of_figures(transfer.transfer)),
    _Section("alternatives", "Beside alternatives", _of_figures(transfer.alternatives)),
    _Section("ablations", "What the defaults rest on", _of_figures(transfer.ablations)),
    _Section("ideas", "Beyond the paper", _of_figures(transfer.ideas)),
    _Section("estimator", "How well rates are estimated", _estimators),
    _Section("overhead", "What measuring adds to a training", _overhead),
    _Section("scaling", "How the cost grows", _scaling),
    _Section("registry", "Many profiles, and large ones", _registry),
    _Section("rpc", "What one service does", _rpc),
    _Section("chaos", "What faults do to it", _chaos),
    _Section("fuzz", "What nonsense does to it", _fuzz),
    _Section("demo", "The demo", _demo),
)


def stored(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the figures that there are, by name.

    Args:
        folder: Where the files are.
    """
    return {
        path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))
    }


def page(folder: Path) -> str:
    """Return the page; what was not measured has no section.

    Args:
        folder: Where the files are.
    """
    found = stored(folder)
    parts = [_OPENING]
    for section in _SECTIONS:
        if figures := found.get(section.file):
            source = f"[{section.file}.json](../../benchmarks/results/{section.file}.json)"
            parts += [
                f"## {section.title}",
                section.render(figures, folder),
                f"From {source}: `{figures['command']}`. {figures.get('note', '')}".rstrip(),
            ]
    known = [section.file for section in _SECTIONS if section.file in found]
    shown = {name: found[name] for name in known}
    parts += ["## Where they were measured", _sources(shown), _CLOSING]
    return "\n\n".join(map(_wrapped, "\n\n".join(parts).split("\n\n"))) + "\n"


def _wrapped(paragraph: str) -> str:
    """Return prose in lines of our width; all else as it is."""
    if paragraph.startswith(("|", "#", "!", "-")):
        return paragraph
    return textwrap.fill(paragraph, 100, break_long_words=False, break_on_hyphens=False)


def _sources(found: Mapping[str, Mapping[str, Any]]) -> str:
    return table(
        ("file", "commit", "date", "machine", "versions"),
        [
            (
                name,
                ", ".join(map(_short, _commits(figures))),
                figures["date"][:10],
                _machine(figures["machine"], figures["threads"]),
                ", ".join(f"{package} {version}" for package, version in _main_versions(figures)),
            )
            for name, figures in found.items()
        ],
    )


def _commits(figures: Mapping[str, Any]) -> list[str]:
    parts = [part for name in _PARTS for part in figures.get(name, ())]
    own = [part["commit"] for part in parts if "commit" in part]
    return list(dict.fromkeys(own if len(own) == len(parts) > 0 else [*own, figures["commit"]]))


def _short(commit: str) -> str:
    return commit[:12] + ("-dirty" if "-dirty" in commit else "")


def _main_versions(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown = ("python", "torch", "grpcio", "redis")
    return [(name, figures["versions"][name]) for name in shown if name in figures["versions"]]


def _machine(machine: Mapping[str, Any], threads: int | None) -> str:
    parts = [machine["cpu"], f"{machine['cores']} cores", f"{machine['memory_gib']} GiB"]
    if machine["accelerator"]:
        parts.insert(0, machine["accelerator"])
    if threads is not None:
        parts.append("1 thread" if threads == 1 else f"{threads} threads")
    return ", ".join(parts)


def drawn(folder: Path) -> dict[str, str]:
    """Return all pictures as SVG, by file name.

    Args:
        folder: Where the figures are.
    """
    figures = stored(folder).get("transfer")
    return pictures.draw(figures) if figures else {}
