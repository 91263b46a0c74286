"""Command-line options for the service's settings, generated from the settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from types import NoneType
from typing import Annotated, Any, get_args

import typer

from advisor.server.settings import Settings


def with_setting_options(names: Iterable[str] = ()) -> Callable[[Callable[..., None]], Any]:
    """Return a decorator that adds an option for each setting to a command.

    The command receives the settings that were set on the command line as ``given``.

    Args:
        names: The settings. Default: all.
    """
    wanted = list(names) or list(Settings.model_fields)

    def decorate(command: Callable[..., None]) -> Any:
        own = inspect.signature(command, eval_str=True)
        kept = [parameter for name, parameter in own.parameters.items() if name != "given"]

        def wrapper(**values: Any) -> None:
            given = {name: values.pop(name) for name in wanted}
            command(
                given={name: value for name, value in given.items() if value is not None}, **values
            )

        parameters = [*kept, *(_option(name) for name in wanted)]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        wrapper.__doc__ = command.__doc__
        wrapper.__name__ = command.__name__
        return wrapper

    return decorate


def _default(name: str) -> str:
    """Return a sentence for the help on a setting's default; nothing if its description has it."""
    default = Settings.model_fields[name].get_default(call_default_factory=True)
    if default is None:
        return ""
    if isinstance(default, bool):
        return f" Default: {'on' if default else 'off'}."
    return f" Default: {default:g}." if isinstance(default, float) else f" Default: {default}."


def _option(name: str) -> inspect.Parameter:
    field = Settings.model_fields[name]
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    kind = kinds[0] if kinds else field.annotation
    dashed = name.replace("_", "-")
    flag = f"--{dashed}/--no-{dashed}" if kind is bool else f"--{dashed}"
    # The option itself has no default, so that a setting that is not given comes from the
    # environment; its help states the setting's.
    variable = f"[env: ADVISOR_{name.upper()}]"
    option = typer.Option(flag, help=f"{field.description}{_default(name)} {variable}")
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, option],  # type: ignore[operator]
    )
