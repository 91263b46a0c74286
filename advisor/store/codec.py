"""Profiles as bytes: one canonical form, so that equal content has equal bytes and an equal digest.

A profile is a header and arrays. The header is JSON with sorted keys and no spaces; the arrays are
the steps (int64), the unit rates and their relative errors (float32), little-endian, in C order,
one after the other. The digest is the SHA-256 of both with a newline between. Stored arrays are
compressed; the digest is of the uncompressed ones.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from advisor.errors import ProfileDamagedError
from advisor.policy import Alignment, DepthRule, Group, Layout, Policy, UnmatchedRule
from advisor.profiles import ProfileContent, ProfileHeader, Provenance

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class EncodedProfile:
    """A profile as it is stored.

    Attributes:
        digest: SHA-256 of the content, lower-case hexadecimal.
        header: Canonical JSON.
        arrays: Compressed arrays.
    """

    digest: str
    header: bytes
    arrays: bytes


def encode(content: ProfileContent) -> EncodedProfile:
    """Return the canonical bytes of a profile and their digest."""
    header = json.dumps(
        _header_fields(content), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    arrays = b"".join((
        content.steps.astype("<i8").tobytes(),
        content.unit_rates.astype("<f4").tobytes(),
        content.relative_errors.astype("<f4").tobytes(),
    ))
    return EncodedProfile(_digest(header, arrays), header, zlib.compress(arrays))


def decode(encoded: EncodedProfile) -> ProfileContent:
    """Return the profile that the bytes hold.

    Raises:
        ProfileDamagedError: The bytes are not those that the digest names.
    """
    try:
        arrays = zlib.decompress(encoded.arrays)
    except zlib.error:
        raise ProfileDamagedError(encoded.digest) from None
    if _digest(encoded.header, arrays) != encoded.digest:
        raise ProfileDamagedError(encoded.digest)
    header = decode_header(encoded.header)
    points, groups = json.loads(encoded.header)["points"], len(header.layout)
    split = points * 8, points * 8 + points * groups * 4
    return ProfileContent(
        header,
        np.frombuffer(arrays[: split[0]], "<i8"),
        np.frombuffer(arrays[split[0] : split[1]], "<f4").reshape(points, groups),
        np.frombuffer(arrays[split[1] :], "<f4").reshape(points, groups),
    )


def decode_header(header: bytes) -> ProfileHeader:
    """Return the header alone, for lists."""
    fields: dict[str, Any] = json.loads(header)
    policy = fields["policy"]
    return ProfileHeader(
        layout=Layout(tuple(Group(*group) for group in fields["layout"])),
        base_learning_rate=fields["base_learning_rate"],
        total_steps=fields["total_steps"],
        policy=Policy(**{
            **policy,
            "depth_rule": DepthRule(policy["depth_rule"]),
            "alignment": Alignment(policy["alignment"]),
            "unmatched_rule": UnmatchedRule(policy["unmatched_rule"]),
        }),
        provenance=Provenance(**fields["provenance"]),
        labels=fields["labels"],
        docs=fields["docs"],
    )


def _header_fields(content: ProfileContent) -> dict[str, Any]:
    header = content.header
    return {
        "format": _FORMAT,
        "points": len(content.steps),
        "layout": [
            [g.name, g.role, g.depth_index, g.depth_count, g.parameter_count]
            for g in header.layout.groups
        ],
        "base_learning_rate": float(header.base_learning_rate),
        "total_steps": header.total_steps,
        "policy": {
            **asdict(header.policy),
            "depth_rule": header.policy.depth_rule.value,
            "alignment": header.policy.alignment.value,
            "unmatched_rule": header.policy.unmatched_rule.value,
        },
        "provenance": asdict(header.provenance),
        "labels": dict(header.labels),
        "docs": header.docs,
    }


def _digest(header: bytes, arrays: bytes) -> str:
    return hashlib.sha256(header + b"\n" + arrays).hexdigest()
