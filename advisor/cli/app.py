"""The command line's root: all commands and groups."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from advisor.cli import (
    audit,
    backup,
    check,
    doctor,
    export,
    mapping,
    pilot,
    policy,
    policy_try,
    profile,
    profile_diff,
    profile_exchange,
    profile_templates,
    profile_versions,
    recipe,
    recipe_run,
    recipe_store,
    report,
    run,
    run_metrics,
    run_watch,
    serve,
    token,
    web,
)
from advisor.cli.progress import whole_command
from advisor.policy.control_characters import without_controls


class _Commands(TyperGroup):
    """All commands, of which each is shown in a terminal while it takes long."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """Return the name, the command and its arguments, and show it from here on."""
        name, command, rest = super().resolve_command(ctx, args)
        if not ctx.resilient_parsing:  # it is not merely completed in a shell
            words = ["advisor", str(name), *(rest[:1] if isinstance(command, TyperGroup) else [])]
            ctx.with_resource(whole_command(without_controls(" ".join(words))))
        return name, command, rest


app = typer.Typer(
    cls=_Commands,
    name="advisor",
    help="Learning-rate transfer as a service: run the advisor, manage profiles, and look at runs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: its columns never cut a name or a default
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve.serve)
app.command()(serve.health)
app.command()(web.web)
app.command()(doctor.doctor)
app.command()(mapping.explain)
app.command()(report.report)
app.command()(pilot.pilot)
app.command()(export.export)
app.command()(audit.audit)
app.command()(check.check)
app.command()(backup.backup)
profile.app.command()(mapping.check)
profile.app.command()(profile_versions.alias)
profile.app.command()(profile_versions.delete)
profile.app.command()(profile_diff.diff)
profile.app.command()(profile_exchange.export)
profile.app.command("import")(profile_exchange.import_)
profile.app.command()(profile_exchange.merge)
profile.app.command()(profile_templates.templates)
app.add_typer(profile.app, name="profile")
policy.app.command("try")(policy_try.try_)
app.add_typer(policy.app, name="policy")
run.app.command()(run_watch.watch)
run.app.command()(run_metrics.metrics)
run.app.command()(run_metrics.report_metrics)
recipe.app.command()(recipe_run.apply)
recipe.app.command()(recipe_run.check)
recipe.app.command("set")(recipe_store.set_)
recipe.app.command()(recipe_store.get)
recipe.app.command()(recipe_store.stored)
recipe.app.command()(recipe_store.delete)
app.add_typer(recipe.app, name="recipe")
app.add_typer(run.app, name="run")
app.add_typer(token.app, name="token")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fslr-advisor {version('fslr-advisor')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Options of the root command."""
