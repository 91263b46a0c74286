"""All methods of the contract, read from its descriptors so that new ones are included."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import Message

import fslr.advisor.v1


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Attributes:
        service: The service's name without its package.
        name: The method's own name.
        path: ``/package.Service/Method``.
        request: The descriptor of its requests.
        response: The class of its responses.
        takes_stream: Whether its request is a stream.
        gives_stream: Whether its response is a stream.
    """

    service: str
    name: str
    path: str
    request: Descriptor
    response: type[Message]
    takes_stream: bool
    gives_stream: bool

    @property
    def short(self) -> str:
        """``Service/Method``."""
        return f"{self.service}/{self.name}"


def files() -> list[FileDescriptor]:
    """Return the descriptors of all files of the contract."""
    modules = pkgutil.iter_modules(fslr.advisor.v1.__path__, "fslr.advisor.v1.")
    return [
        importlib.import_module(module.name).DESCRIPTOR
        for module in modules
        if module.name.endswith("_pb2")
    ]


def all_methods() -> list[Method]:
    """Return all methods of all services, in the order of their names."""
    found = [
        Method(
            service.name,
            method.name,
            f"/{service.full_name}/{method.name}",
            method.input_type,
            message_factory.GetMessageClass(method.output_type),
            method.client_streaming,
            method.server_streaming,
        )
        for file in files()
        for service in file.services_by_name.values()
        for method in service.methods
    ]
    return sorted(found, key=lambda method: method.path)


@functools.cache
def by_name() -> dict[str, Method]:
    """Return all methods by ``Service/Method``."""
    return {method.short: method for method in all_methods()}


def class_of(descriptor: Descriptor) -> type[Message]:
    """Return the class of a descriptor's messages."""
    return message_factory.GetMessageClass(descriptor)


def is_map(field: FieldDescriptor) -> bool:
    """Return whether a field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def map_fields(field: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor]:
    """Return the fields for the keys and the values of a map."""
    fields: Any = field.message_type
    return fields.fields_by_name["key"], fields.fields_by_name["value"]
