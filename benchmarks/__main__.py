"""The command ``python -m benchmarks``."""

from __future__ import annotations

import typer

from benchmarks.comparing.command import compare_stored
from benchmarks.demo.command import demo
from benchmarks.estimator import estimator
from benchmarks.frameworks import frameworks
from benchmarks.measurements import measurements
from benchmarks.optimizers.command import optimizers
from benchmarks.overhead.command import overhead
from benchmarks.practice.command import practice
from benchmarks.registry import registry
from benchmarks.report.command import results
from benchmarks.rpc.command import rpc
from benchmarks.scaling import scaling
from benchmarks.studies.ablations import ablations
from benchmarks.studies.adapters import adapters
from benchmarks.studies.base_widths import base_widths
from benchmarks.studies.ideas import ideas
from benchmarks.studies.noise import noise
from benchmarks.studies.recipes import recipes
from benchmarks.studies.references import references
from benchmarks.studies.warm_ups import warm_ups
from benchmarks.templates import templates
from benchmarks.transfer.alternatives import alternatives
from benchmarks.transfer.command import transfer
from benchmarks.web.command import web

app = typer.Typer(
    help="Measure the figures of the documentation, and render its pages from them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(ablations)
app.command()(adapters)
app.command()(alternatives)
app.command("base-widths")(base_widths)
app.command("compare")(compare_stored)
app.command()(demo)
app.command()(estimator)
app.command()(frameworks)
app.command()(ideas)
app.command()(measurements)
app.command()(noise)
app.command()(optimizers)
app.command()(overhead)
app.command()(practice)
app.command()(recipes)
app.command()(references)
app.command()(registry)
app.command()(results)
app.command()(rpc)
app.command()(scaling)
app.command()(templates)
app.command()(transfer)
app.command()(warm_ups)
app.command()(web)


@app.callback()
def _group() -> None:
    """Each benchmark is a command."""


if __name__ == "__main__":
    app()
