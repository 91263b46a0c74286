"""YAML with the value types of JSON: no dates, no ``on`` for true, no duplicate keys.

Needs PyYAML, which the base installation does not include.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from fslr.yaml_numbers import FloatLiteral, IntLiteral

_BaseLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BaseDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_MAX_LINE_WIDTH = 100
_MAX_INLINE_ITEMS = 2  # of a list inside a mapping that is written in one line


class _Loader(_BaseLoader):  # type: ignore[misc]
    """Reads null, booleans and numbers in JSON's notation (plus ``.inf``); all else is text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
        """Return a mapping whose keys are the text in the file.

        Raises:
            ValueError: A key is given twice, or is a list or a mapping.
        """
        self.flatten_mapping(node)
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.id != "scalar":
                raise ValueError(f"line {line} has a list or a mapping as a key")
            if key_node.value in mapping:
                raise ValueError(
                    f"{key_node.value!r} is given twice, the second time in line {line}"
                )
            mapping[key_node.value] = self.construct_object(value_node, deep=deep)
        return mapping


# For each type that is not text, its pattern and the characters that it can start with.
_TYPES = {
    "null": (r"null|~|", ["n", "~", ""]),
    "bool": (r"true|false", ["t", "f"]),
    "int": (r"-?(?:0|[1-9][0-9]{0,30})", list("-0123456789")),
    "float": (
        r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|-?\.inf|\.nan",
        list("-.0123456789"),
    ),
}
_NOT_TEXT = re.compile("|".join(f"(?:{pattern})" for pattern, _ in _TYPES.values()))


def _construct_float(_: Any, node: Any) -> float:
    return FloatLiteral(node.value)


def _construct_int(_: Any, node: Any) -> int:
    return IntLiteral(node.value)


for _tag, (_pattern, _first) in _TYPES.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first
    )
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


class _InlineList(list[Any]):
    """A list that is written in one line."""


class _InlineDict(dict[str, Any]):
    """A mapping that is written in one line."""


class _Dumper(_BaseDumper):  # type: ignore[misc]
    """Writes multi-line text as blocks, and no anchors."""

    def ignore_aliases(self, _data: Any) -> bool:
        """Return True: an object that occurs twice is written twice."""
        return True


def _represent_text(dumper: Any, text: str) -> Any:
    style = "|" if "\n" in text else None
    if _NOT_TEXT.fullmatch(text):
        style = "'"  # otherwise it would be read as a number, a boolean or null
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(
    _InlineList,
    lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True),
)
_Dumper.add_representer(
    _InlineDict,
    lambda dumper, data: dumper.represent_mapping(
        "tag:yaml.org,2002:map", data.items(), flow_style=True
    ),
)


def load(text: str) -> Any:
    """Parse YAML into dicts, lists and scalars.

    Raises:
        ValueError: The text is not YAML, or a key is given twice or is not a scalar.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of the safe loader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def dump(fields: Any) -> str:
    """Return dicts, lists and scalars as YAML, with lists of numbers in one line each.

    A mapping inside a list is written in one line as well, if all its values are short.
    """
    text = yaml.dump(
        _with_inline_parts(fields),
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=False,
        width=_MAX_LINE_WIDTH,
        allow_unicode=True,
    )
    return str(text)


def _with_inline_parts(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _with_inline_parts(value) for key, value in data.items()}
    if not isinstance(data, list):
        return data
    if not any(isinstance(item, (dict, list)) for item in data):
        return _InlineList(data) if not any(isinstance(item, str) for item in data) else list(data)
    return [
        _InlineDict({key: _with_inline_parts(value) for key, value in item.items()})
        if isinstance(item, dict) and all(map(_is_short, item.values()))
        else _with_inline_parts(item)
        for item in data
    ]


def _is_short(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= _MAX_INLINE_ITEMS and all(map(_is_short, value))
    return not isinstance(value, dict) and "\n" not in str(value)
