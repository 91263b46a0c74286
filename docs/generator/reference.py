"""The parts of the reference that are made from the code when the site is built.

Each function takes the repository's root and returns Markdown; a page names it in a line
``<!-- generated: NAME -->``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

import fslr
from advisor.cli import app
from advisor.observability.metrics import Metrics
from advisor.recipes import Recipe, shipped_recipe, shipped_recipe_names
from advisor.recipes.words import powers_text, selection_text
from advisor.server.settings import Settings
from advisor.wire.errors import DEFECT, TABLE
from docs.generator.markdown import code, table
from docs.generator.protos import comments_of_reasons, contract
from docs.generator.remedies import REMEDIES
from fslr.errors import BY_REASON


def settings(_: Path) -> str:
    """Return the settings of ``advisor serve``."""
    rows = []
    for name, field in Settings.model_fields.items():
        if field.default_factory is not None:
            default = "of the system"
        else:
            default = "none" if field.default is None else f"`{str(field.default).lower()}`"
        names = code(f"--{name.replace('_', '-')}", f"ADVISOR_{name.upper()}")
        rows.append((names, default, field.description or ""))
    return table(("option, environment variable", "default", "meaning"), rows)


def metrics(_: Path) -> str:
    """Return the metrics of the service."""
    rows = []
    for metric in sorted(Metrics().registry.collect(), key=lambda each: each.name):
        is_counter = metric.type == "counter"
        name = f"{metric.name}_total" if is_counter else metric.name
        rows.append((f"`{name}`", metric.type, metric.documentation))
    return table(("metric", "type", "meaning"), rows)


def errors(root: Path) -> str:
    """Return all reasons of errors with status, exception, meaning and remedy.

    Args:
        root: The repository.

    Raises:
        ValueError: A reason has no remedy, or a remedy no reason.
    """
    meanings = comments_of_reasons(root)
    codes = {mapping.reason: mapping.code.name for mapping in (*TABLE.values(), DEFECT)}
    if set(REMEDIES) != set(BY_REASON):
        wrong = sorted(set(REMEDIES) ^ set(BY_REASON))
        raise ValueError(f"docs/generator/remedies.py and fslr/errors.py differ in {wrong}")
    rows = [
        (
            code(reason, codes[reason], kind.__name__),
            _sentence(meanings[reason].removeprefix(f"{codes[reason]}: ")),
            REMEDIES[reason],
        )
        for reason, kind in BY_REASON.items()
    ]
    return table(("reason, status, exception", "meaning", "remedy"), rows)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def commands(_: Path) -> str:
    """Return every command of ``advisor`` with its arguments and options."""
    root: Any = get_command(app)
    context = root.context_class(root, info_name="advisor")
    return "\n\n".join(_of_command(root, context, 2))


def _of_command(command: Any, context: Any, level: int) -> Iterator[str]:
    named = getattr(command, "commands", {})
    if context.parent is not None:
        yield f"{'#' * level} {context.command_path}"
    help_text = (command.help or "").replace("\f", "").strip()
    if help_text:
        yield help_text
    if not named:
        yield f"```text\n{command.get_usage(context)}\n```"
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    if arguments:
        names = [(each.metavar or each.name).strip("{}").upper() for each in arguments]
        rows = [(f"`{name}`", _help_of(each)) for name, each in zip(names, arguments, strict=True)]
        yield table(("argument", "meaning"), rows)
    shown = [each for each in options if not each.hidden and each.name != "help"]
    if shown and context.parent is not None:
        yield table(
            ("option", "default", "meaning"),
            [
                (
                    code(*each.opts, *each.secondary_opts),
                    _default_of(each),
                    _help_of(each),
                )
                for each in shown
            ],
        )
    for name in named:
        below = named[name]
        if not below.hidden:
            inner = below.context_class(below, info_name=name, parent=context)
            yield from _of_command(below, inner, level + bool(context.parent))


def _help_of(parameter: Any) -> str:
    text = str(getattr(parameter, "help", None) or "").replace(r"\[", "[")
    variable = getattr(parameter, "envvar", None)
    return f"{text} Environment: `{variable}`." if variable else text


def _default_of(option: Any) -> str:
    default = option.default
    if isinstance(default, str | int | float) and not isinstance(default, bool):
        return f"`{default}`"
    return "required" if option.required else ""


def _api(source: str, package: str) -> Callable[[Path], str]:
    """Return what makes the directives that render a package's docstrings.

    Args:
        source: The folder that the package lies in, relative to the repository.
        package: The package, or a module.
    """

    def directives(root: Path) -> str:
        folder = root.joinpath(source, *package.split("."))
        init = folder / "__init__.py"
        names = [package]
        if init.is_file() and "__all__" not in init.read_text("utf-8"):  # it re-exports nothing
            stems = sorted(path.stem for path in folder.glob("*.py"))
            names += [f"{package}.{stem}" for stem in stems if not stem.startswith("_")]
        return "\n\n".join(f"::: {name}" for name in names)

    return directives


def _api_of_fslr(_: Path) -> str:
    """Return the directive for ``fslr``, without the exceptions, which have their own page."""
    names = [name for name in fslr.__all__ if not name.endswith("Error")]
    return f"::: fslr\n    options:\n      members: [{', '.join(names)}]"


def _api_of_integrations(_: Path) -> str:
    """Return the directives for what users import from ``fslr.integrations``, and its options."""
    options = ("callbacks.AdviceOptions", "callbacks.RecordingOptions")
    trainers = ("transformers", "lightning", *options, "accelerate", "label_masks")
    others = ("tensorboard", "wandb", "mlflow", "progress")
    return "\n\n".join(f"::: fslr.integrations.{name}" for name in (*trainers, *others))


def decisions(root: Path) -> str:
    """Return the list of recorded decisions.

    Args:
        root: The repository.
    """
    paths = sorted((root / "docs" / "decisions").glob("[0-9]*.md"))
    titles = [path.read_text("utf-8").partition("\n")[0].removeprefix("# ") for path in paths]
    return "\n".join(
        f"- [{title.replace('.', chr(92) + '.', 1)}]({path.name})"
        for title, path in zip(titles, paths, strict=True)
    )


def recipes(_: Path) -> str:
    """Return the shipped recipes: source, conditions and table of each."""
    return "\n\n".join(map(_of_recipe, map(shipped_recipe, shipped_recipe_names())))


def _of_recipe(recipe: Recipe) -> str:
    heads = ("groups", *(field.value.replace("_", " ") for field in recipe.fields))
    rows = [
        (selection_text(row), *(powers_text(row.powers.get(field)) for field in recipe.fields))
        for row in recipe.rows
    ]
    families = ", ".join(recipe.optimizers) or "any"
    parts = [
        f"### {recipe.name}",
        recipe.description,
        f"Optimizers: {families}. Source: {recipe.source}.",
        table(heads, [[_as_code(cell, i) for i, cell in enumerate(row)] for row in rows]),
        "Conditions:\n\n" + "\n".join(f"- {condition}" for condition in recipe.conditions),
    ]
    return "\n\n".join(parts)


def _as_code(cell: str, column: int) -> str:
    return f"`{cell}`" if cell and column else cell


PARTS: dict[str, Callable[[Path], str]] = {
    "commands": commands,
    "decisions": decisions,
    "errors": errors,
    "metrics": metrics,
    "protos": contract,
    "python-client": _api("clients/python", "fslr.client"),
    "python-errors": _api("clients/python", "fslr.errors"),
    "python-fslr": _api_of_fslr,
    "python-local": _api(".", "advisor.local"),
    "python-testing": _api("clients/python", "fslr.testing"),
    "python-torch": _api("clients/python", "fslr.torch"),
    "python-integrations": _api_of_integrations,
    "python-jax": _api("clients/python", "fslr.jax"),
    "python-training": _api("clients/python", "fslr.training"),
    "recipes": recipes,
    "settings": settings,
}
