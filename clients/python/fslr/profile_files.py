"""Profiles as JSON files that people can read and edit."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import json_format

from fslr.advisor.v1 import profile_pb2
from fslr.errors import ProfileFileError


def save_profile(content: profile_pb2.ProfileContent, path: str | Path) -> None:
    """Write a profile's content as JSON (the protobuf mapping, field names as in the proto)."""
    text = json_format.MessageToJson(content, preserving_proto_field_name=True, indent=1)
    Path(path).write_text(text + "\n", encoding="utf-8")


def load_profile(path: str | Path) -> profile_pb2.ProfileContent:
    """Read a profile's content from a JSON file.

    Raises:
        ProfileFileError: The file cannot be read, or is no profile.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileFileError(f"the profile file {path} cannot be read: {error}") from error
    content = profile_pb2.ProfileContent()
    try:
        json_format.Parse(text, content)
    except json_format.ParseError as error:
        raise ProfileFileError(f"{path} is not a profile: {error}") from error
    return content
