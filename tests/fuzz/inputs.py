"""Inputs: which method gets which bytes, and the files in which a failing one is kept."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fslr.advisor.v1 import advisor_service_pb2
from tests.fuzz import corpus, mutation
from tests.fuzz.messages import Builder, on_the_wire
from tests.fuzz.methods import Method, class_of

Metadata = tuple[tuple[str, str | bytes], ...]

# How often each kind of message is made. Valid ones keep the registry full.
KINDS = {"valid": 18, "fields": 45, "bytes": 16, "built": 18, "random": 3}
_METADATA_RATIO = 0.04
_LARGEST_METADATA_BYTES = 100_000  # gRPC itself refuses them from 8 KiB on


@dataclass(frozen=True, slots=True)
class Input:
    """What one call sends.

    Attributes:
        method: ``Service/Method``.
        kind: How it was made.
        messages: The bytes of each message.
        metadata: What goes with them.
    """

    method: str
    kind: str
    messages: tuple[bytes, ...]
    metadata: Metadata = ()

    def save(self, folder: Path, why: str) -> Path:
        """Write the input to a new file that is named after its method."""
        folder.mkdir(parents=True, exist_ok=True)
        number = sum(1 for _ in folder.iterdir()) + 1
        path = folder / f"{self.method.replace('/', '.')}-{number}.json"
        fields = {
            "method": self.method,
            "kind": self.kind,
            "why": why,
            "messages": [_coded(message) for message in self.messages],
            "metadata": [
                [key, value if isinstance(value, str) else {"base64": _coded(value)}]
                for key, value in self.metadata
            ],
        }
        path.write_text(json.dumps(fields, indent=1) + "\n", "utf-8")
        return path

    @classmethod
    def load(cls, path: Path) -> Input:
        """Read what :meth:`save` wrote."""
        fields = json.loads(path.read_text("utf-8"))
        return cls(
            fields["method"],
            fields["kind"],
            tuple(base64.b64decode(message) for message in fields["messages"]),
            tuple(
                (key, value if isinstance(value, str) else base64.b64decode(value["base64"]))
                for key, value in fields["metadata"]
            ),
        )


def _coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Source:
    """Makes inputs without end, the same ones for the same seed.

    Args:
        seed: The seed.
        methods: The methods, taken in turn.
    """

    def __init__(self, seed: int, methods: Sequence[Method]) -> None:
        self._chance = random.Random(seed)
        self._methods = methods

    def __iter__(self) -> Iterator[Input]:
        """Yield inputs."""
        while True:
            for method in self._methods:
                yield self.of(method)

    def of(self, method: Method, kind: str = "") -> Input:
        """Return an input for a method, of a kind or of any."""
        chance = self._chance
        kind = kind or chance.choices(list(KINDS), list(KINDS.values()))[0]
        messages = self._stream(method, kind) if method.takes_stream else (self._one(method, kind),)
        metadata = _metadata(chance) if chance.random() < _METADATA_RATIO else ()
        return Input(method.short, kind, messages, metadata)

    def _one(self, method: Method, kind: str) -> bytes:
        chance, builder = self._chance, Builder(self._chance, method.service)
        if kind == "random":
            return chance.randbytes(chance.choice((0, 1, 2, 5, 20, 200, 3_000)))
        valid = corpus.valid_request(method.short, chance)
        if kind == "built" or valid is None:
            return on_the_wire(builder.message(method.request))
        if kind == "fields":
            return on_the_wire(mutation.mutated_fields(valid, builder, chance))
        data = valid.SerializeToString()
        if kind == "valid":
            return data
        other = corpus.valid_request(method.short, chance) or valid
        return mutation.mutated_bytes(data, other.SerializeToString(), chance)

    def _stream(self, method: Method, kind: str) -> tuple[bytes, ...]:
        """Return the messages of a stream: valid ones behind an odd one, or odd ones behind."""
        chance, builder = self._chance, Builder(self._chance, method.service)
        first = corpus.valid_request(method.short, chance)
        count = chance.choice((1, 2, 3, 5))
        if not isinstance(first, advisor_service_pb2.RecommendLRRequest):
            return tuple(self._one(method, kind) for _ in range(count))
        groups = len(first.opening.layout.groups)
        later = [class_of(method.request)() for _ in range(count)]
        for message in later:
            message.measurement.CopyFrom(corpus.measurement(chance, groups))  # type: ignore[attr-defined]
        plain = [message.SerializeToString() for message in (first, *later)]
        if kind == "valid":
            return tuple(plain)
        if chance.random() < 0.3:
            return (self._one(method, kind), *plain[1:])
        at = chance.randrange(1, len(plain))
        match kind:
            case "fields":
                odd = on_the_wire(mutation.mutated_fields(later[at - 1], builder, chance))
            case "bytes":
                odd = mutation.mutated_bytes(plain[at], plain[0], chance)
            case _:
                odd = self._one(method, kind)
        return (*plain[:at], odd, *plain[at + 1 :])


def _metadata(chance: random.Random) -> Metadata:
    """Return metadata as no client of ours would send it."""
    large = chance.choice((100, 300, 4_000, 7_000, 20_000, _LARGEST_METADATA_BYTES))
    one = chance.choice((
        ("fslr-actor", "somebody"),
        ("fslr-actor", ""),
        ("fslr-actor", "%"),
        ("fslr-actor", "%ff%fe%00%0a%1b[31m"),
        ("fslr-actor", "%ED%A0%80"),
        ("fslr-actor", "%zz%%%2"),
        ("fslr-actor", "a" * 256),
        ("fslr-actor", "a" * 257),
        ("fslr-actor", "%C3%A9" * 256),
        ("fslr-actor", "a" * large),
        ("fslr-actor-bin", bytes(range(256))),
        ("fslr-actor-bin", b""),
        ("x-" + "k" * 200, "v"),
        ("authorization", "Bearer " + "x" * chance.choice((0, 1, 400, large))),
        ("authorization", "Basic Og=="),
        ("traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-00"),
        ("traceparent", "ff-zz"),
        ("grpc-previous-rpc-attempts", "-1"),
        ("x-many-bin", chance.randbytes(64)),
    ))
    return (one,) * chance.choice((1, 1, 1, 2, 20))
