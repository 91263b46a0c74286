"""Profiles, layouts and measurements as JSON or YAML files that people can read and edit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

from fslr.advisor.v1 import profile_pb2
from fslr.errors import ProfileFileError

_YAML_SUFFIXES = {".yaml", ".yml"}

_Message = TypeVar("_Message", bound=Message)


def save_profile(content: profile_pb2.ProfileContent, path: str | Path) -> None:
    """Write a profile's content (the protobuf mapping, field names as in the proto).

    Args:
        content: The content.
        path: Where to; YAML where the name ends in ``.yaml`` or ``.yml``, else JSON.

    Raises:
        ProfileFileError: The file cannot be written, or YAML is wanted and PyYAML is not installed.
    """
    fields = json_format.MessageToDict(content, preserving_proto_field_name=True)
    text = formatted(fields, yaml=Path(path).suffix in _YAML_SUFFIXES)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ProfileFileError(f"{path} cannot be written: {error}") from error


def load_profile(path: str | Path) -> profile_pb2.ProfileContent:
    """Read a profile's content from a JSON or YAML file.

    Raises:
        ProfileFileError: The file cannot be read, or is no profile.
    """
    return message_of(load_fields(path), profile_pb2.ProfileContent(), f"{path} is not a profile")


def load_fields(path: str | Path) -> Any:
    """Read the plain data of a JSON or YAML file.

    Raises:
        ProfileFileError: The file cannot be read, or is neither.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileFileError(f"the profile file {path} cannot be read: {error}") from error
    if Path(path).suffix in _YAML_SUFFIXES:
        yaml = _yaml()
        try:
            return yaml.load(text, Loader=_strings_for_times(yaml))
        except yaml.YAMLError as error:
            raise ProfileFileError(f"{path} is not YAML: {error}") from error
    try:
        return json.loads(text)
    except ValueError as error:
        raise ProfileFileError(f"{path} is not JSON: {error}") from error


def message_of(fields: Any, message: _Message, what: str) -> _Message:
    """Return the message that plain data spells.

    Args:
        fields: The data.
        message: An empty message of the wanted kind; it is filled.
        what: How the complaint begins.

    Raises:
        ProfileFileError: The data spells no such message.
    """
    if not isinstance(fields, dict):
        raise ProfileFileError(f"{what}: it holds no fields; write `name: value` pairs")
    try:
        return json_format.ParseDict(fields, message)
    except (json_format.ParseError, TypeError, ValueError) as error:
        raise ProfileFileError(f"{what}: {error}") from error


def formatted(fields: Any, *, yaml: bool) -> str:
    """Return plain data as YAML, with arrays of numbers in one line, or as JSON."""
    if yaml:
        dumper = _yaml()
        text = dumper.safe_dump(
            fields, sort_keys=False, default_flow_style=None, width=100, allow_unicode=True
        )
        return str(text)
    return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"


def _yaml() -> Any:
    try:
        import yaml  # noqa: PLC0415 - the base installation does without
    except ImportError as error:
        raise ProfileFileError(
            "YAML files need PyYAML: pip install 'fslr-advisor[server]', or use JSON"
        ) from error
    return yaml


def _strings_for_times(yaml: Any) -> Any:
    """Return a safe loader that leaves times as they are written, as protobuf wants them."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        pass

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Loader
