"""YAML as people expect it: no dates, no `on` for true, no numbers in disguise, no name twice.

Needs PyYAML, which the base installation does without.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from fslr.yaml_numbers import WrittenFloat, WrittenInt

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_WIDTH = 100
_FEW = 2  # items of a list that stands in one line with others


class _PlainLoader(_Loader):  # type: ignore[misc]
    """Takes for values what JSON takes for values, and for text all else."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
        """Return a mapping, its names as they are written.

        Raises:
            ValueError: A name is given twice, or is none.
        """
        self.flatten_mapping(node)
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.id != "scalar":
                raise ValueError(f"line {line} has a list or a mapping for a name")
            if key_node.value in mapping:
                raise ValueError(
                    f"{key_node.value!r} is given twice, the second time in line {line}"
                )
            mapping[key_node.value] = self.construct_object(value_node, deep=deep)
        return mapping


_VALUES = {
    "null": (r"null|~|", ["n", "~", ""]),
    "bool": (r"true|false", ["t", "f"]),
    "int": (r"-?(?:0|[1-9][0-9]{0,30})", list("-0123456789")),
    "float": (
        r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|-?\.inf|\.nan",
        list("-.0123456789"),
    ),
}
_VALUE = re.compile("|".join(f"(?:{pattern})" for pattern, _ in _VALUES.values()))


def _float(_: Any, node: Any) -> float:
    return WrittenFloat(node.value)


def _int(_: Any, node: Any) -> int:
    return WrittenInt(node.value)


for _tag, (_pattern, _first) in _VALUES.items():
    _PlainLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first
    )
_PlainLoader.add_constructor("tag:yaml.org,2002:float", _float)
_PlainLoader.add_constructor("tag:yaml.org,2002:int", _int)


class _Line(list[Any]):
    """A list that stands in one line."""


class _Pairs(dict[str, Any]):
    """A mapping that stands in one line."""


class _PlainDumper(_Dumper):  # type: ignore[misc]
    """Writes texts of several lines as such, and shares nothing."""

    def ignore_aliases(self, _data: Any) -> bool:
        """Return True: what is written twice stands there twice."""
        return True


def _text(dumper: Any, text: str) -> Any:
    style = "|" if "\n" in text else None
    if _VALUE.fullmatch(text):
        style = "'"  # what would be read as a number, a word of logic or nothing
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_PlainDumper.add_representer(str, _text)
_PlainDumper.add_representer(
    _Line,
    lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True),
)
_PlainDumper.add_representer(
    _Pairs,
    lambda dumper, data: dumper.represent_mapping(
        "tag:yaml.org,2002:map", data.items(), flow_style=True
    ),
)


def loaded(text: str) -> Any:
    """Return the plain data of a text.

    Raises:
        ValueError: It is not YAML, or gives a name twice.
    """
    try:
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def dumped(fields: Any) -> str:
    """Return plain data as YAML: lists of numbers and small mappings in lists in one line."""
    text = yaml.dump(
        _shaped(fields),
        Dumper=_PlainDumper,
        sort_keys=False,
        default_flow_style=False,
        width=_WIDTH,
        allow_unicode=True,
    )
    return str(text)


def _shaped(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _shaped(value) for key, value in data.items()}
    if not isinstance(data, list):
        return data
    if not any(isinstance(item, (dict, list)) for item in data):
        return _Line(data) if not any(isinstance(item, str) for item in data) else list(data)
    return [
        _Pairs({key: _shaped(value) for key, value in item.items()})
        if isinstance(item, dict) and all(map(_short, item.values()))
        else _shaped(item)
        for item in data
    ]


def _short(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= _FEW and all(map(_short, value))
    return not isinstance(value, dict) and "\n" not in str(value)
