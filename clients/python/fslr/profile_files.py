"""Profiles, layouts and rules as JSON or YAML files that people can read and edit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from fslr.advisor.v1 import layout_pb2, profile_pb2
from fslr.errors import ProfileFileError
from fslr.optional_dependencies import install_command
from fslr.yaml_numbers import WrittenFloat, WrittenInt

_YAML_SUFFIXES = {".yaml", ".yml"}
_TABLES = ("group_aliases", "layout", "correlated_groups", "points")
_NO_YAML = f"YAML files need PyYAML: {install_command('server')}; or use a JSON file"
_WIDE_INTEGERS = {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}

_Message = TypeVar("_Message", bound=Message)


def save_profile(content: profile_pb2.ProfileContent, path: str | Path) -> None:
    """Write a profile's content (the protobuf mapping, field names as in the proto).

    Args:
        content: The content.
        path: Where to; YAML where the name ends in ``.yaml`` or ``.yml``, else JSON.

    Raises:
        ProfileFileError: The file cannot be written, or YAML is wanted and PyYAML is not installed.
    """
    _write(path, profile_text(content, yaml=_is_yaml(path)))


def save_layout(layout: layout_pb2.Layout, path: str | Path) -> None:
    """Write a layout, such as that of ``fslr.torch.ModelGroups``, for ``advisor profile check``.

    Args:
        layout: The layout.
        path: Where to; YAML where the name ends in ``.yaml`` or ``.yml``, else JSON.

    Raises:
        ProfileFileError: The file cannot be written, or YAML is wanted and PyYAML is not installed.
    """
    _write(path, formatted(fields_of(layout), yaml=_is_yaml(path)))


def load_profile(path: str | Path) -> profile_pb2.ProfileContent:
    """Read a profile's content from a JSON or YAML file.

    Raises:
        ProfileFileError: The file cannot be read, or is no profile.
    """
    return message_of(load_fields(path), profile_pb2.ProfileContent(), f"{path} is not a profile")


def load_fields(path: str | Path) -> Any:
    """Read the plain data of a JSON or YAML file.

    Raises:
        ProfileFileError: The file cannot be read, is neither, or gives a name twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ProfileFileError(f"the file {path} cannot be read: {error}") from error
    kind = "YAML" if _is_yaml(path) else "JSON"
    try:
        if kind == "YAML":
            from fslr._yaml import loaded  # noqa: PLC0415 - the base installation does without

            return loaded(text)
        return json.loads(
            text, object_pairs_hook=_once, parse_int=WrittenInt, parse_float=WrittenFloat
        )
    except (ValueError, RecursionError) as error:
        raise ProfileFileError(f"{path} is not {kind}: {str(error) or 'too deep'}") from error
    except ImportError as error:
        raise ProfileFileError(_NO_YAML) from error


def fields_of(message: Message, *, words: bool = False) -> dict[str, Any]:
    """Return a message as plain data: field names as in the proto, integers as integers.

    Args:
        message: The message.
        words: Whether enum values are written as people say them, such as ``sum``.
    """
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return _as_people_write(fields, message.DESCRIPTOR, words=words)


def message_of(fields: Any, message: _Message, what: str) -> _Message:
    """Return the message that plain data spells.

    Args:
        fields: The data. Numbers are taken for text where text is wanted (a commit of digits), and
            words such as ``sum`` for enum values.
        message: An empty message of the wanted kind; it is filled.
        what: How the complaint begins.

    Raises:
        ProfileFileError: The data spells no such message.
    """
    if not isinstance(fields, dict):
        raise ProfileFileError(f"{what}: it holds no fields; write `name: value` pairs")
    try:
        return json_format.ParseDict(_as_protobuf_wants(fields, message.DESCRIPTOR), message)
    except (json_format.ParseError, TypeError, ValueError, AttributeError) as error:
        raise ProfileFileError(f"{what}: {_in_our_words(error, message)}") from error


def profile_text(content: profile_pb2.ProfileContent, *, yaml: bool) -> str:
    """Return a profile's content as it stands in files.

    Raises:
        ProfileFileError: YAML is wanted and PyYAML is not installed.
    """
    return formatted(_tables_last(fields_of(content, words=yaml)), yaml=yaml)


def formatted(fields: Any, *, yaml: bool) -> str:
    """Return plain data as YAML, made to be read and edited, or as JSON.

    Raises:
        ProfileFileError: YAML is wanted and PyYAML is not installed.
    """
    if not yaml:
        return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"
    try:
        from fslr._yaml import dumped  # noqa: PLC0415 - the base installation does without
    except ImportError as error:
        raise ProfileFileError(_NO_YAML) from error
    return dumped(fields)


def _tables_last(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a profile with its words before its long tables."""
    words = {key: value for key, value in fields.items() if key not in _TABLES}
    if "labels" in words:
        words["labels"] = dict(sorted(words["labels"].items()))
    return {**words, **{key: fields[key] for key in _TABLES if key in fields}}


def _write(path: str | Path, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ProfileFileError(f"{path} cannot be written: {error}") from error


def _is_yaml(path: str | Path) -> bool:
    return Path(path).suffix.lower() in _YAML_SUFFIXES


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields:
            raise ValueError(f"{key!r} is given twice")
        fields[key] = value
    return fields


def _fields(fields: dict[str, Any], descriptor: Any) -> list[tuple[str, FieldDescriptor]]:
    """Return those keys of plain data that are fields, with their descriptors."""
    known = descriptor.fields_by_name
    return [(key, known[key]) for key in fields if isinstance(key, str) and key in known]


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _as_people_write(fields: dict[str, Any], descriptor: Any, *, words: bool) -> dict[str, Any]:
    """Undo the protobuf mapping's strings for 64-bit integers; give each point its step."""
    filled = dict(fields)
    if descriptor.full_name == profile_pb2.ProfilePoint.DESCRIPTOR.full_name:
        filled = {"step": 0, **filled}
    for key, field in _fields(filled, descriptor):
        value = filled[key]
        if field.cpp_type in _WIDE_INTEGERS:
            filled[key] = [int(v) for v in value] if isinstance(value, list) else int(value)
        elif words and field.enum_type is not None and isinstance(value, str):
            filled[key] = value.removeprefix(_prefix(field)).lower()
        elif isinstance(value, dict) and not _is_map(field):
            filled[key] = _as_people_write(value, field.message_type, words=words)
        elif isinstance(value, list) and field.message_type is not None:
            filled[key] = [_as_people_write(v, field.message_type, words=words) for v in value]
    return filled


def _as_protobuf_wants(fields: Any, descriptor: Any) -> Any:
    """Write numbers as text where a field is text, and words as the names of enum values."""
    if not isinstance(fields, dict):
        return fields
    filled = dict(fields)
    for key, field in _fields(filled, descriptor):
        value = filled[key]
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            listed = isinstance(value, list)
            filled[key] = [_as_text(v) for v in value] if listed else _as_text(value)
        elif field.enum_type is not None and isinstance(value, str):
            word = re.sub(r"[ -]", "_", value).upper()
            filled[key] = word if word.startswith(_prefix(field)) else _prefix(field) + word
        elif _is_map(field) and isinstance(value, dict):
            filled[key] = {_as_text(k): _as_text(v) for k, v in value.items()}
        elif field.message_type is not None:
            inner = field.message_type
            filled[key] = (
                [_as_protobuf_wants(v, inner) for v in value]
                if isinstance(value, list)
                else _as_protobuf_wants(value, inner)
            )
    return filled


def _prefix(field: FieldDescriptor) -> str:
    """Return what the names of an enum's values begin with: `DEPTH_RULE_` of `DepthRule`."""
    name = "" if field.enum_type is None else field.enum_type.name
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper() + "_"


def _as_text(value: Any) -> Any:
    """Return a number or truth value as it was written; anything else as it is."""
    if isinstance(value, bool):
        return str(value).lower()
    return getattr(value, "text", str(value)) if isinstance(value, (int, float)) else value


def _in_our_words(error: Exception, message: Message) -> str:
    """Return protobuf's complaint without its lists of names in another spelling."""
    text = str(error).split(" Available Fields", maxsplit=1)[0].rstrip(". \n")
    if "no field named" in text:
        known = ", ".join(field.name for field in message.DESCRIPTOR.fields)
        text += f"; at the top there are {known}"
    return text
