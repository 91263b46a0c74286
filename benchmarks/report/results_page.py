"""The results page: one section for each file of figures that is stored."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.markdown import number, table, wrapped
from benchmarks.report import measuring_tables, service_tables, tables, transfer
from benchmarks.report.paths import (
    BATCH_DECISION,
    FIGURES,
    MEASUREMENT,
    SETUPS,
    SIZING,
    link_from_results,
)
from benchmarks.report.sentences import estimator_columns
from benchmarks.report.stored import Figures
from benchmarks.report.web_page import web_page
from benchmarks.studies import base_widths as base_widths_study
from benchmarks.studies import noise as noise_study

_OPENING = f"""\
# Results

The measurements behind the claims of the documentation, with the commands that print them and the
machines that they ran on. `make results` writes this page and its pictures from
[benchmarks/results]({link_from_results(FIGURES)}). `make results-measure PART=NAME` measures them
again, in parts that each run overnight, except the comparison with other services and the fault
injection, whose commands are below. `python -m benchmarks compare OLD NEW` shows which figures got
worse beyond noise."""

_CLOSING = """\
For a file whose parts are measured one by one, the table lists the commit of each part. Missing
entries were not recorded."""
_MEASURED_PARTS = ("cases", "ablations", "ideas")  # lists whose entries may have their own commit


@dataclass(frozen=True, slots=True)
class _Section:
    """A section of the page.

    Attributes:
        file: The file with its figures, without suffix.
        title: Its heading.
        render: Returns its text.
    """

    file: str
    title: str
    render: Callable[[Figures], str]


def _practice(figures: Figures) -> str:
    rows = figures["rows"]
    setups = link_from_results(SETUPS)
    return (
        f"Small character GPTs, in {len(rows)} common [training setups]({setups}). "
        "The learning rate is the base's best one, or an octave above it where the name says so. "
        "Losses on held-out text, in nats per character, are means over "
        f"{len(rows[0]['seeds'])} seeds. The regret is the advised loss minus the loss of the "
        "plain model at its own best learning rate, ± two standard errors over seeds. Advised "
        "trainings have measured multipliers and follow no recipe. A setup is "
        "harmed if its advised loss is above the base's or above the plain one at the same "
        "learning rate by more than two standard errors of the paired differences.\n\n"
        f"{tables.practice(figures)}\n\n"
        f"The median regret is {number(figures['median_regret'], '+.3f')} nats, the largest one "
        f"{number(figures['worst_regret'], '+.3f')}; {figures['harmed']} of {len(rows)} setups "
        "are harmed."
    )


def _estimators(figures: Figures) -> str:
    where = link_from_results(MEASUREMENT, "which-estimator")
    return (
        "The rate of each tensor, estimated from one probe, against the exact rate. `per_example` "
        f"is our estimator, `kronecker` the paper's ([all estimators]({where})). "
        f"{estimator_columns(figures)}\n\n{measuring_tables.estimator(figures)}"
    )


def _overhead(figures: Figures) -> str:
    ours, paper = figures["ours"], figures["paper"]
    where = link_from_results(MEASUREMENT, "what-it-costs")
    return (
        f"Measuring adds {number(ours['overhead'], '.1%')} to the time of a training with our "
        f"procedure and {number(paper['overhead'], '.1%')} with the paper's. The rates then have "
        f"relative errors of {number(ours['relative_error'], '.2f')} and "
        f"{number(paper['relative_error'], '.2f')} ([details]({where})).\n\n"
        + measuring_tables.overhead(figures)
    )


def _measurements(figures: Figures) -> str:
    longest = max(cost["first"] for cost in figures["architectures"].values())
    return (
        "The processor time of a measurement with one probe, in training steps of the same small "
        "model; medians of paired steps. A first measurement also finds out how each group is "
        f"measured, and takes up to {number(longest, '.1f')} training steps. The last column is "
        "the variance of the exact squared rate over the examples of a batch, relative to the "
        "squared mean, median over groups; that of one probe is 2.\n\n"
        f"{measuring_tables.measurements(figures)}"
    )


def _scaling(figures: Figures) -> str:
    return (
        "The cost of one measurement of a residual MLP on 64 examples:\n\n"
        + measuring_tables.measuring(figures)
        + "\n\nThe time of an optimizer step that scales the learning rate of each tensor, with "
        "4096 elements per tensor:\n\n" + measuring_tables.stepping(figures)
    )


def _frameworks(figures: Figures) -> str:
    losses = figures["cross_framework"]
    return (
        f"The same weights, batch and update of a residual MLP with {figures['blocks']} blocks, "
        f"measured in PyTorch and in JAX at width {figures['width']}. RMSE and bias are means over "
        f"{figures['measurements']} measurements. The cost is that of a measurement with one probe "
        f"at width {figures['timed_width']}, relative to a gradient; both are compiled.\n\n"
        f"{measuring_tables.frameworks(figures)}\n\n"
        "A profile that was recorded from a character GPT in PyTorch advises a wider one in Flax, "
        "at the same learning rate (one seed). The validation loss of the wider model is "
        f"{number(losses['plain'], '.2f')} nats without advice and "
        f"{number(losses['advised'], '.2f')} nats with it."
    )


def _registry(figures: Figures) -> str:
    return (
        "How the time of a call depends on the number of stored profiles, and what a large profile "
        f"costs:\n\n{service_tables.registry(figures)}"
    )


def _rpc(figures: Figures) -> str:
    stream = figures["stream"]
    where = link_from_results(SIZING, "sizing")
    return (
        f"{stream['sent']:,} measurements were sent through streams, and {stream['lost']:,} of "
        f"them were not stored. The service, Redis and the load generator shared "
        f"{figures['cores']} cores. [{SIZING.name}]({where}) says how to use these figures.\n\n"
        + service_tables.sizing(figures)
        + "\n\nPaired rounds with an echo server, which answers with the same bytes and does "
        "nothing else, and with other services:\n\n" + service_tables.comparison(figures)
    )


def _chaos(figures: Figures) -> str:
    rows = [
        ("acknowledged writes lost", figures["lost"]),
        ("version numbers assigned twice", figures["doubled"]),
        ("recommendations from a different version than the one named", figures["wrong_version"]),
        ("multipliers that are not finite or out of bounds", figures["non_finite"]),
        ("training steps that waited beyond the deadline", figures["blocked"]),
    ]
    if "logged_defects" in figures:  # earlier runs did not count them
        rows.append(("lines in the services' logs that report defects", figures["logged_defects"]))
    return (
        f"Clients register profiles, move aliases and stream measurements while "
        f"{figures['faults']:,} faults are injected: Redis and the service are killed, frozen and "
        "restarted, connections are cut, delayed, held and throttled, and answers are dropped. "
        "Redis runs as a single server, with Sentinels, and as a Cluster of three. Found in "
        f"{figures['operations']:,} operations:\n\n{_counts(rows)}"
    )


def _fuzz(figures: Figures) -> str:
    rows = [
        ("answers with status INTERNAL or UNKNOWN", figures["internal"]),
        ("crashes", figures["crashes"]),
        ("answers that the contract does not allow", figures["unexpected"]),
        ("growth of the service's memory, KiB", figures["kib_growth"]),
    ]
    return (
        f"{figures['inputs']:,} random and mutated messages were sent to all {figures['methods']} "
        f"methods through a raw channel:\n\n{_counts(rows)}"
    )


def _counts(rows: list[tuple[str, int]]) -> str:
    return table(("", "count"), [(name, f"{count:,}") for name, count in rows])


def _demo(figures: Figures) -> str:
    base, plain = figures["sweep"], figures.get("plain_sweep", {})
    sweeps = table(
        ("learning rate", "loss of the base, nats per character", "loss of the plain model"),
        [
            (f"{value:g}", number(_at(base, value)), number(_at(plain, value)))
            for value in sorted({float(key) for key in (*base, *plain)}, reverse=True)
        ],
    )
    gpt2 = figures.get("gpt2")
    second = (
        f"\n\nWith GPT-2's setup, from width {gpt2['base_width']} to {gpt2['width']} and "
        f"{gpt2['steps']} steps, the base's best learning rate is {gpt2['learning_rate']:g}, the "
        f"plain model's {gpt2['best_plain_learning_rate']:g}, and multipliers are between "
        f"{number(gpt2['multiplier_min'], '.2g')} and {number(gpt2['multiplier_max'], '.2g')}."
        if gpt2
        else ""
    )
    return (
        f"A character GPT of {figures['blocks']} blocks, {figures['steps']} steps of Adam, one "
        f"seed; the whole demo takes {number(figures['seconds'], '.0f')} s. The advised run ends "
        f"{number(figures['gain'], '.2f')} nats below the plain one, with multipliers between "
        f"{number(figures['multiplier_min'], '.2g')} and "
        f"{number(figures['multiplier_max'], '.2g')}.\n\n"
        + tables.demo(figures)
        + f"\n\nThe sweep that found the learning rate {figures['learning_rate']:g}, and that of "
        f"the plain model:\n\n{sweeps}{second}"
        "\n\nThe pictures show the training losses and the rates of each layer of the run with "
        "Adam.\n\n"
        "![Training losses of base, plain and advised](../images/demo-losses.png)\n\n"
        "![Rates of each layer: base, plain and advised](../images/demo-rates.png)"
    )


def _at(sweep: Mapping[str, float], learning_rate: float) -> float | None:
    return next((loss for key, loss in sweep.items() if float(key) == learning_rate), None)


def _noise(figures: Figures) -> str:
    axes = noise_study.AXES_OF_DATA
    rows = [row for row in figures["noise"] if row["axis"] in axes and row["shift"] is not None]
    alike = sum(row["predicted"] * row["shift"] > 0 for row in rows)
    errors = [abs(row["predicted"] - row["shift"]) for row in rows]
    return (
        "Cases whose big model is the base with more data per step, or with more steps, and others "
        "whose shift under advice is beyond an octave. Advice lets a big model's outputs move as "
        "far per step as the base's did. If noise raises the loss as the square of a step, the "
        "best step grows with the root of the part of a gradient that is signal. Trainings without "
        "advice, at the base's best learning rate, measure that part from products of gradients of "
        "different batches; models that are larger have the factors of depth-muP there. With other "
        "data, the shift that it predicts has the sign of the one under advice in "
        f"{alike} of {len(rows)} cases, and differs from it by a mean of "
        f"{statistics.fmean(errors):.2f} octaves. The shifts themselves have a mean size of "
        f"{statistics.fmean(abs(row['shift']) for row in rows):.2f}. A factor from this signal "
        "does not win on cases that were held out "
        f"([decision]({link_from_results(BATCH_DECISION)})).\n\n"
        f"{table(noise_study.HEADS, [noise_study.cells_of(row) for row in figures['noise']])}"
    )


def _base_widths(figures: Figures) -> str:
    rows = figures["base_widths"]
    return (
        "The cases that scale the width, and whose shift under advice is beyond an octave, also "
        "with a base that is twice as wide. The big model stays, so it grows less. If each "
        "doubling of the width moved the optimum alike, the shift would shrink with the number of "
        "doublings, as the column `if proportional` shows. If it shrinks faster, the narrow base "
        "is the reason.\n\n"
        f"{table(base_widths_study.HEADS, base_widths_study.cells_of(rows))}"
    )


def _recipes(figures: Figures) -> str:
    compared = [row for row in figures["rows"] if row["tensors"] is not None]
    differing = sum(bool(row["tensors"]) for row in compared)
    worst = max(row["max_difference"] for row in compared)
    rows = [
        (
            row["model"],
            row["recipe"],
            row["optimizer"],
            f"{row['with_rule']} of {row['groups']}",
            "-" if row["tensors"] is None else str(len(row["tensors"])),
            number(row["max_difference"], ".0e"),
            "; ".join(row["problems"]),
        )
        for row in figures["rows"]
    ]
    heads = (
        *("model", "recipe", "optimizer", "groups with a rule", "factors that differ"),
        *("losses differ by", "problems that `advisor recipe check` finds"),
    )
    return (
        "The parametrizations as recipes, applied to the layouts of a base and a larger model, and "
        "as independent code that reads the modules. Both train the larger model in float64 for "
        f"{figures['steps']} steps. Factors differ in {differing} of {len(compared)} rows, and "
        f"losses by at most {number(worst, '.0e')} of their value.\n\n{table(heads, rows)}"
    )


_SECTIONS = (
    _Section("transfer", "Transfer of learning rates", transfer.transfer),
    _Section("transfer-larger", "Transfer to a larger model", transfer.larger),
    _Section("recipes", "Recipes and model code", _recipes),
    _Section("practice", "Common training setups", _practice),
    _Section("ablations", "What the defaults rest on", transfer.ablations),
    _Section("ideas", "Beyond the paper", transfer.ideas),
    _Section("noise", "Noise of gradients", _noise),
    _Section("base-widths", "Wider bases", _base_widths),
    _Section("estimator", "Accuracy of the estimators", _estimators),
    _Section("overhead", "What measuring adds to a training", _overhead),
    _Section("measurements", "First and later measurements", _measurements),
    _Section("scaling", "How the cost grows", _scaling),
    _Section("frameworks", "PyTorch and JAX", _frameworks),
    _Section("registry", "Many profiles and large profiles", _registry),
    _Section("rpc", "Throughput of one service", _rpc),
    _Section("web", "The web page", web_page),
    _Section("chaos", "Fault injection", _chaos),
    _Section("fuzz", "Fuzzing", _fuzz),
    _Section("demo", "The demo", _demo),
)


def results_page(stored: Mapping[str, Figures]) -> str:
    """Return the page, without the sections whose figures are not stored.

    Args:
        stored: The stored figures, as :func:`load_figures` returns them.
    """
    sections = [section for section in _SECTIONS if section.file in stored]
    parts = [_OPENING]
    for section in sections:
        figures = stored[section.file]
        file = FIGURES / f"{section.file}.json"
        parts += [
            f"## {section.title}",
            section.render(figures),
            f"Source: [{file.name}]({link_from_results(file)}), written by "
            f"`{figures['command']}`. {figures.get('note', '')}".rstrip(),
        ]
    shown = {section.file: stored[section.file] for section in sections}
    parts += ["## Where the figures were measured", _sources(shown), _CLOSING]
    return wrapped("\n\n".join(parts)) + "\n"


def _sources(found: Mapping[str, Figures]) -> str:
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
    parts = [part for name in _MEASURED_PARTS for part in figures.get(name, ())]
    own = [part["commit"] for part in parts if "commit" in part]
    return list(dict.fromkeys(own if len(own) == len(parts) > 0 else [*own, figures["commit"]]))


def _short(commit: str) -> str:
    return commit[:12] + ("-dirty" if "-dirty" in commit else "")


def _main_versions(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown = ("python", "torch", "jax", "grpcio", "redis")
    return [(name, figures["versions"][name]) for name in shown if name in figures["versions"]]


def _machine(machine: Mapping[str, Any], threads: int | None) -> str:
    parts = [machine["cpu"], f"{machine['cores']} cores", f"{machine['memory_gib']} GiB"]
    if machine["accelerator"]:
        parts.insert(0, machine["accelerator"])
    if threads is not None:
        parts.append("1 thread" if threads == 1 else f"{threads} threads")
    return ", ".join(parts)
