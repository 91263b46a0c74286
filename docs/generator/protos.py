"""The contract as Markdown: services, messages and enums, with the comments of the protos."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from google.protobuf import descriptor_pb2 as d
from grpc_tools import protoc

from docs.generator.markdown import table

_PACKAGE = "fslr.advisor.v1"
_Path = tuple[int, ...]
_TYPES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in d.FieldDescriptorProto.Type.items()
}


@cache
def _files(root: Path) -> list[d.FileDescriptorProto]:
    """Return the proto files, compiled with their comments."""
    folder = root / "protos"
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch, "set")
        arguments = [f"-I{folder}", f"-I{Path(protoc.__file__).parent / '_proto'}"]
        options = ["--include_source_info", f"--descriptor_set_out={out}"]
        if protoc.main(["protoc", *arguments, *options, *names]) != 0:
            raise ValueError("protoc cannot compile the protos; its message is above")
        return list(d.FileDescriptorSet.FromString(out.read_bytes()).file)


def _comments(file: d.FileDescriptorProto) -> dict[_Path, str]:
    """Return the comment before each element, by its path in the file."""
    return {
        tuple(location.path): _prose(location.leading_comments)
        for location in file.source_code_info.location
        if location.leading_comments
    }


def _prose(comment: str) -> str:
    """Return a comment on one line, without the lines that are for ``buf``."""
    lines = comment.splitlines()
    return " ".join(" ".join(line for line in lines if "buf:lint:ignore" not in line).split())


def comments_of_reasons(root: Path) -> dict[str, str]:
    """Return the comment of each error reason, by its name without prefix.

    Args:
        root: The repository.
    """
    (file,) = [each for each in _files(root) if each.name.endswith("/error.proto")]
    comments = _comments(file)
    ((at, reasons),) = [
        (at, enum) for at, enum in enumerate(file.enum_type) if enum.name == "ErrorReason"
    ]
    return {
        value.name.removeprefix("ERROR_REASON_"): comments[5, at, 2, number]
        for number, value in enumerate(reasons.value)
    }


def contract(root: Path) -> str:
    """Return all services, messages and enums.

    Args:
        root: The repository.
    """
    files = sorted(_files(root), key=lambda file: (not file.service, file.name))
    return "\n\n".join(part for file in files for part in _of_file(file))


def _of_file(file: d.FileDescriptorProto) -> Iterator[str]:
    comments = _comments(file)
    yield f"## {Path(file.name).name}"
    if (12,) in comments or (2,) in comments:
        yield comments.get((12,)) or comments[2,]
    for at, service in enumerate(file.service):
        yield f"### {service.name}"
        yield comments.get((6, at), "")
        for number, method in enumerate(service.method):
            yield f"#### {service.name}.{method.name}"
            asked = ("stream " if method.client_streaming else "") + _short(method.input_type)
            given = ("stream " if method.server_streaming else "") + _short(method.output_type)
            yield f"```proto\nrpc {method.name}({asked}) returns ({given})\n```"
            yield comments.get((6, at, 2, number), "")
    for at, message in enumerate(file.message_type):
        yield from _of_message(message, (4, at), comments, "")
    for at, enum in enumerate(file.enum_type):
        yield from _of_enum(enum, (5, at), comments, "")


def _of_message(
    message: d.DescriptorProto, path: _Path, comments: Mapping[_Path, str], outer: str
) -> Iterator[str]:
    if message.options.map_entry:
        return
    name = f"{outer}{message.name}"
    yield f"### {name}"
    yield comments.get(path, "")
    maps = {each.name: each for each in message.nested_type if each.options.map_entry}
    if message.field:
        yield table(
            ("field", "type", "meaning"),
            (
                (f"`{each.name}`", _type_of(each, maps), comments.get((*path, 2, at), ""))
                for at, each in enumerate(message.field)
            ),
        )
    for at, nested in enumerate(message.nested_type):
        yield from _of_message(nested, (*path, 3, at), comments, f"{name}.")
    for at, enum in enumerate(message.enum_type):
        yield from _of_enum(enum, (*path, 4, at), comments, f"{name}.")


def _of_enum(
    enum: d.EnumDescriptorProto, path: _Path, comments: Mapping[_Path, str], outer: str
) -> Iterator[str]:
    yield f"### {outer}{enum.name}"
    yield comments.get(path, "")
    yield table(
        ("value", "number", "meaning"),
        (
            (f"`{value.name}`", str(value.number), comments.get((*path, 2, at), ""))
            for at, value in enumerate(enum.value)
        ),
    )


def _type_of(field: d.FieldDescriptorProto, maps: Mapping[str, d.DescriptorProto]) -> str:
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        key, value = entry.field
        return f"map of {_type_of(key, {})} to {_type_of(value, {})}"
    name = _short(field.type_name) if field.type_name else _TYPES[field.type]
    shown = f"`{name}`"
    if field.type_name.startswith(f".{_PACKAGE}."):
        shown = f"[{shown}](#{_anchor(name)})"
    if field.label == d.FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {shown}"
    return f"optional {shown}" if field.proto3_optional else shown


def _short(name: str) -> str:
    return name.removeprefix(f".{_PACKAGE}.").removeprefix(".")


def _anchor(name: str) -> str:
    return re.sub(r"[^\w-]", "", name.lower())
