"""Profiles, layouts and policies as JSON or YAML files that people can read and edit.

The files follow protobuf's JSON mapping with the field names of the protos. On top of it, 64-bit
integers are numbers instead of strings, numbers may be given for text fields, and enum values may
be given as words, such as ``sum`` for ``DEPTH_RULE_SUM``.
"""

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
from fslr.yaml_numbers import FloatLiteral, IntLiteral

_YAML_SUFFIXES = {".yaml", ".yml"}
_TABLES = ("group_aliases", "layout", "correlated_groups", "points")
_NO_YAML = f"YAML files need PyYAML: {install_command('server')}; or use a JSON file"
_WIDE_INTEGERS = {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}

_Message = TypeVar("_Message", bound=Message)


def save_profile(content: profile_pb2.ProfileContent, path: str | Path) -> None:
    """Write a profile's content to a file.

    Args:
        content: The content.
        path: The file: YAML if its name ends in ``.yaml`` or ``.yml``, else JSON.

    Raises:
        ProfileFileError: The file cannot be written, or it is a YAML file and PyYAML is not
            installed.
    """
    _write(path, format_profile(content, yaml=_is_yaml(path)))


def save_layout(layout: layout_pb2.Layout, path: str | Path) -> None:
    """Write a layout, such as that of ``fslr.torch.ModelGroups``, for ``advisor profile check``.

    Args:
        layout: The layout.
        path: The file: YAML if its name ends in ``.yaml`` or ``.yml``, else JSON.

    Raises:
        ProfileFileError: The file cannot be written, or it is a YAML file and PyYAML is not
            installed.
    """
    yaml = _is_yaml(path)
    _write(path, format_fields(message_to_fields(layout, enum_words=yaml), yaml=yaml))


def load_profile(path: str | Path) -> profile_pb2.ProfileContent:
    """Read a profile's content from a JSON or YAML file.

    Raises:
        ProfileFileError: The file cannot be read, or does not contain a profile; or it is a YAML
            file and PyYAML is not installed.
    """
    return message_from_fields(
        load_fields(path), profile_pb2.ProfileContent(), f"{path} is not a profile"
    )


def load_fields(path: str | Path) -> Any:
    """Read a JSON or YAML file into dicts, lists and scalars.

    Raises:
        ProfileFileError: The file cannot be read, is not valid JSON or YAML, or gives a key twice;
            or it is a YAML file and PyYAML is not installed.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ProfileFileError(f"the file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ProfileFileError(f"the file {path} cannot be read: {error}") from error
    kind = "YAML" if _is_yaml(path) else "JSON"
    try:
        if kind == "YAML":
            from fslr._yaml import load  # noqa: PLC0415 - PyYAML is optional

            return load(text)
        return json.loads(
            text,
            object_pairs_hook=_dict_of_unique_keys,
            parse_int=IntLiteral,
            parse_float=FloatLiteral,
        )
    except (ValueError, RecursionError) as error:
        reason = str(error) or "it is nested too deeply"
        raise ProfileFileError(f"{path} is not {kind}: {reason}") from error
    except ImportError as error:
        raise ProfileFileError(_NO_YAML) from error


def message_to_fields(message: Message, *, enum_words: bool = False) -> dict[str, Any]:
    """Return a message as dicts, lists and scalars, with the field names of the proto.

    Args:
        message: The message.
        enum_words: Whether enum values are words such as ``sum``, instead of their proto names.
    """
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return _from_protobuf_json(fields, message.DESCRIPTOR, enum_words=enum_words)


def message_from_fields(fields: Any, message: _Message, error_prefix: str) -> _Message:
    """Fill a message from dicts, lists and scalars, and return it.

    Args:
        fields: The data. Text fields may be given as numbers (a commit that consists of digits),
            and enum values as words such as ``sum``.
        message: An empty message.
        error_prefix: The beginning of the error message.

    Raises:
        ProfileFileError: The data does not fit the message.
    """
    if not isinstance(fields, dict):
        raise ProfileFileError(f"{error_prefix}: it has no fields; write `name: value` pairs")
    try:
        return json_format.ParseDict(_to_protobuf_json(fields, message.DESCRIPTOR), message)
    except (json_format.ParseError, TypeError, ValueError, AttributeError) as error:
        raise ProfileFileError(f"{error_prefix}: {_readable(error, message)}") from error


def format_profile(content: profile_pb2.ProfileContent, *, yaml: bool) -> str:
    """Return a profile's content as YAML or JSON text.

    Raises:
        ProfileFileError: ``yaml`` is set and PyYAML is not installed.
    """
    return format_fields(_tables_last(message_to_fields(content, enum_words=yaml)), yaml=yaml)


def format_fields(fields: Any, *, yaml: bool) -> str:
    """Return dicts, lists and scalars as YAML or JSON text.

    Raises:
        ProfileFileError: ``yaml`` is set and PyYAML is not installed.
    """
    if not yaml:
        return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"
    try:
        from fslr._yaml import dump  # noqa: PLC0415 - PyYAML is optional
    except ImportError as error:
        raise ProfileFileError(_NO_YAML) from error
    return dump(fields)


def _tables_last(fields: dict[str, Any]) -> dict[str, Any]:
    """Return a profile's fields with the long tables last and the labels sorted."""
    ordered = {key: value for key, value in fields.items() if key not in _TABLES}
    if "labels" in ordered:
        ordered["labels"] = dict(sorted(ordered["labels"].items()))
    return {**ordered, **{key: fields[key] for key in _TABLES if key in fields}}


def _write(path: str | Path, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ProfileFileError(f"the file {path} cannot be written: {error}") from error


def _is_yaml(path: str | Path) -> bool:
    return Path(path).suffix.lower() in _YAML_SUFFIXES


def _dict_of_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields:
            raise ValueError(f"{key!r} is given twice")
        fields[key] = value
    return fields


def _known_fields(fields: dict[str, Any], descriptor: Any) -> list[tuple[str, FieldDescriptor]]:
    """Return the keys that are fields of the message, with their descriptors."""
    known = descriptor.fields_by_name
    return [(key, known[key]) for key in fields if isinstance(key, str) and key in known]


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _from_protobuf_json(
    fields: dict[str, Any], descriptor: Any, *, enum_words: bool
) -> dict[str, Any]:
    """Turn 64-bit integers from strings into numbers, and give each point its step, 0 included."""
    converted = dict(fields)
    if descriptor.full_name == profile_pb2.ProfilePoint.DESCRIPTOR.full_name:
        converted = {"step": 0, **converted}
    for key, field in _known_fields(converted, descriptor):
        value = converted[key]
        inner: Any = field.message_type
        if field.cpp_type in _WIDE_INTEGERS:
            converted[key] = [int(v) for v in value] if isinstance(value, list) else int(value)
        elif enum_words and field.enum_type is not None and isinstance(value, str):
            converted[key] = value.removeprefix(_enum_prefix(field)).lower()
        elif isinstance(value, dict) and not _is_map(field):
            converted[key] = _from_protobuf_json(value, inner, enum_words=enum_words)
        elif isinstance(value, list) and inner is not None:
            converted[key] = [_from_protobuf_json(v, inner, enum_words=enum_words) for v in value]
    return converted


def _to_protobuf_json(fields: Any, descriptor: Any) -> Any:
    """Turn numbers into strings where a field is text, and words into names of enum values."""
    if not isinstance(fields, dict):
        return fields
    converted = dict(fields)
    for key, field in _known_fields(converted, descriptor):
        value = converted[key]
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            is_list = isinstance(value, list)
            converted[key] = [_as_text(v) for v in value] if is_list else _as_text(value)
        elif field.enum_type is not None and isinstance(value, str):
            word = re.sub(r"[ -]", "_", value).upper()
            prefix = _enum_prefix(field)
            converted[key] = word if word.startswith(prefix) else prefix + word
        elif _is_map(field) and isinstance(value, dict):
            converted[key] = {_as_text(k): _as_text(v) for k, v in value.items()}
        elif field.message_type is not None:
            inner = field.message_type
            converted[key] = (
                [_to_protobuf_json(v, inner) for v in value]
                if isinstance(value, list)
                else _to_protobuf_json(value, inner)
            )
    return converted


def _enum_prefix(field: FieldDescriptor) -> str:
    """Return the prefix of an enum's value names: ``DEPTH_RULE_`` for ``DepthRule``."""
    name = "" if field.enum_type is None else field.enum_type.name
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper() + "_"


def _as_text(value: Any) -> Any:
    """Return a number or boolean as it was written in the file; anything else unchanged."""
    if isinstance(value, bool):
        return str(value).lower()
    return getattr(value, "text", str(value)) if isinstance(value, (int, float)) else value


def _readable(error: Exception, message: Message) -> str:
    """Return protobuf's error message, with its list of fields replaced by the proto's names."""
    text = str(error).split(" Available Fields", maxsplit=1)[0].rstrip(". \n")
    if "no field named" in text:
        known = ", ".join(field.name for field in message.DESCRIPTOR.fields)
        text += f"; the top-level fields are {known}"
    return text
