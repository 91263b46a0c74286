"""An option of the command line for each setting of the service, made from the settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from types import NoneType
from typing import Annotated, Any, get_args

import typer

from advisor.server.settings import Settings


def with_setting_options(names: Iterable[str] = ()) -> Callable[[Callable[..., None]], Any]:
    """Give a command an option for each setting; it gets those that were given as ``given``.

    Args:
        names: The settings. Default: all.
    """
    wanted = list(names) or list(Settings.model_fields)

    def decorated(command: Callable[..., None]) -> Any:
        own = inspect.signature(command, eval_str=True)
        kept = [parameter for name, parameter in own.parameters.items() if name != "given"]

        def called(**values: Any) -> None:
            given = {name: values.pop(name) for name in wanted}
            command(
                given={name: value for name, value in given.items() if value is not None}, **values
            )

        parameters = [*kept, *(_option(name) for name in wanted)]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        called.__doc__ = command.__doc__
        called.__name__ = command.__name__
        return called

    return decorated


def _option(name: str) -> inspect.Parameter:
    field = Settings.model_fields[name]
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    kind = kinds[0] if kinds else field.annotation
    dashed = name.replace("_", "-")
    spelled = f"--{dashed}/--no-{dashed}" if kind is bool else f"--{dashed}"
    described = typer.Option(spelled, help=rf"{field.description} \[env: ADVISOR_{name.upper()}]")
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, described],  # type: ignore[operator]
    )
