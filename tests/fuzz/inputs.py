"""The input of one call."""

from __future__ import annotations

from dataclasses import dataclass

from tests.fuzz.methods import Method

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Input:
    """One call.

    Attributes:
        method: The method.
        messages: The bytes of each message; one, unless the method takes a stream.
        metadata: The metadata of the call.
    """

    method: Method
    messages: tuple[bytes, ...]
    metadata: Metadata = ()

    def __repr__(self) -> str:
        """Return a readable form, because Hypothesis prints the smallest failing input."""
        return f"Input({self.method.short}, {self.messages!r}, {self.metadata!r})"
