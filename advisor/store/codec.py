"""Profiles as bytes: one canonical form, so that equal content has equal bytes and an equal digest.

A profile is a header and arrays. The header is JSON with sorted keys and no spaces, every rule of
the policy spelled out, so that a default that changes one day changes no stored profile. The arrays
are the steps (int64), the unit rates and their relative errors (float32), little-endian, in C
order, one after the other; where they are known, the coherences (float32), the scheduled learning
rates (float64) and the spreads (float32) follow. The digest is the SHA-256 of both, a newline
between. Both are stored compressed where that pays; the digest is of the uncompressed ones. Numbers
compress better by their bytes' places (all first bytes, all second bytes, ...), for the first bytes
of rates are much alike; the steps are few, so all of it is taken as numbers of 4 bytes.

What says nothing (no alias, no template) is left out of the header. Beside it a summary is stored,
the header without the layout, for lists.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
import zlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.errors import ProfileDamagedError, ProfileTooNewError
from advisor.policy import Alignment, DepthRule, Group, GroupAlias, Layout, Policy, UnmatchedRule
from advisor.registry.profiles import ProfileContent, ProfileHeader, ProfileSummary, Provenance

_FORMAT = 1
_OPTIONAL = ("coherences", "learning_rates", "spreads")


@dataclass(frozen=True, slots=True)
class EncodedProfile:
    """A profile as it is stored.

    Attributes:
        digest: SHA-256 of the content, lower-case hexadecimal.
        header: Canonical JSON, compressed where it is long.
        arrays: The arrays, compressed where that pays.
        summary: What lists show of it: JSON, without layout and arrays.
    """

    digest: str
    header: bytes
    arrays: bytes
    summary: bytes = b""


def encode(content: ProfileContent) -> EncodedProfile:
    """Return the canonical bytes of a profile and their digest."""
    fields = _header_fields(content)
    header = _canonical(fields)
    summary = _canonical({**fields, "layout": [], "groups": len(content.header.layout)})
    parts: list[tuple[NDArray[Any] | None, str]] = [
        (content.steps, "<i8"),
        (content.unit_rates, "<f4"),
        (content.relative_errors, "<f4"),
        (content.coherences, "<f4"),
        (content.learning_rates, "<f8"),
        (content.spreads, "<f4"),
    ]
    arrays = b"".join(part.astype(kind).tobytes() for part, kind in parts if part is not None)
    return EncodedProfile(
        _digest(header, arrays), _packed_header(header), _packed(arrays), _packed_header(summary)
    )


def decode(encoded: EncodedProfile) -> ProfileContent:
    """Return the profile that the bytes hold.

    Raises:
        ProfileDamagedError: The bytes are not those that the digest names.
        ProfileTooNewError: They are, and this service does not know all that they say.
    """
    try:
        text, arrays = _unpacked_header(encoded.header), _unpacked(encoded.arrays)
    except (zlib.error, ValueError):
        raise ProfileDamagedError(encoded.digest) from None
    if _digest(text, arrays) != encoded.digest:
        raise ProfileDamagedError(encoded.digest)
    try:
        fields: dict[str, Any] = json.loads(text)
        header = _header(fields)
    except (ValueError, TypeError, KeyError):
        raise ProfileTooNewError(encoded.digest) from None
    points, groups = fields["points"], len(header.layout)
    shapes = [("<i8", (points,)), ("<f4", (points, groups)), ("<f4", (points, groups))]
    optional = fields.get("optional", [])
    if "coherences" in optional:
        shapes.append(("<f4", (points, len(header.layout.roles))))
    if "learning_rates" in optional:
        shapes.append(("<f8", (points,)))
    if "spreads" in optional:
        shapes.append(("<f4", (points, groups)))
    parts: list[NDArray[Any]] = []
    offset = 0
    for kind, shape in shapes:
        count = math.prod(shape)
        parts.append(np.frombuffer(arrays, kind, count, offset).reshape(shape))
        offset += parts[-1].nbytes
    extra = dict(zip(optional, parts[3:], strict=True))
    return ProfileContent(
        header,
        parts[0],
        parts[1],
        parts[2],
        coherences=extra.get("coherences"),
        learning_rates=extra.get("learning_rates"),
        spreads=extra.get("spreads"),
    )


def decode_summary(digest: str, summary: bytes) -> ProfileSummary:
    """Return what lists show of a profile.

    Args:
        digest: Its digest, for messages; the summary's bytes are not checked against it.
        summary: The stored summary.

    Raises:
        ProfileDamagedError: The bytes are no summary that this service can read.
    """
    try:
        fields: dict[str, Any] = json.loads(_unpacked_header(summary))
        return ProfileSummary(_header({**fields, "layout": None}), fields["groups"])
    except (zlib.error, ValueError, TypeError, KeyError):
        raise ProfileDamagedError(digest) from None


def _header(fields: dict[str, Any]) -> ProfileHeader:
    if fields["format"] != _FORMAT:
        raise ValueError(f"format {fields['format']}")
    return ProfileHeader(
        layout=_layout(fields),
        base_learning_rate=fields["base_learning_rate"],
        total_steps=fields["total_steps"],
        policy=_policy(fields["policy"]),
        provenance=_provenance(fields["provenance"]),
        labels=fields["labels"],
        docs=fields["docs"],
        aliases=tuple(GroupAlias(*alias) for alias in fields.get("aliases", ())),
        policy_name=fields.get("policy_name", ""),
    )


def _layout(fields: dict[str, Any]) -> Layout:
    if fields["layout"] is None:
        return Layout(())  # a summary
    return Layout.of(
        [_group(group) for group in fields["layout"]],
        fields.get("role_templates", ()),
        fields.get("frozen", ()),
        fields.get("frozen_sizes", ()),
    )


def _group(fields: list[Any]) -> Group:
    plain, inner = fields[:5], fields[5:]
    return Group(*plain, *(tuple(axis) for axis in inner))


def _header_fields(content: ProfileContent) -> dict[str, Any]:
    header = content.header
    templates = header.layout.role_templates
    optional = [name for name in _OPTIONAL if getattr(content, name) is not None]
    return {
        "format": _FORMAT,
        "points": len(content.steps),
        "layout": [
            [g.name, g.role, g.depth_index, g.depth_count, g.parameter_count]
            + ([g.inner_indices, g.inner_counts] if g.inner_indices else [])
            for g in header.layout.groups
        ],
        "base_learning_rate": float(header.base_learning_rate),
        "total_steps": header.total_steps,
        "policy": _policy_fields(header.policy),
        "provenance": _provenance_fields(header.provenance),
        "labels": dict(header.labels),
        "docs": header.docs,
        **({"optional": optional} if optional else {}),
        **({"role_templates": templates} if templates else {}),
        **({"frozen": header.layout.frozen_names} if header.layout.frozen_names else {}),
        **(
            {"frozen_sizes": header.layout.frozen_parameter_counts}
            if header.layout.frozen_parameter_counts
            else {}
        ),
        **({"policy_name": header.policy_name} if header.policy_name else {}),
        **({"aliases": [[a.pattern, a.target] for a in header.aliases]} if header.aliases else {}),
    }


def encode_policy(policy: Policy) -> bytes:
    """Return a policy's rules as canonical JSON."""
    return _canonical(_policy_fields(policy))


def _canonical(fields: dict[str, Any]) -> bytes:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def decode_policy(rules: bytes) -> Policy:
    """Return the policy that canonical JSON spells."""
    return _policy(json.loads(rules))


# Rules that came later, as they were before they could be given: what was registered without them
# keeps its behaviour and its digest.
_FORMER_RULES: dict[str, Any] = {"averaging_window": 0.0}


def _policy(fields: dict[str, Any]) -> Policy:
    return Policy(**{
        **_FORMER_RULES,
        **fields,
        "depth_rule": DepthRule(fields["depth_rule"]),
        "alignment": Alignment(fields["alignment"]),
        "unmatched_rule": UnmatchedRule(fields["unmatched_rule"]),
    })


def _provenance_fields(provenance: Provenance) -> dict[str, Any]:
    fields = asdict(provenance)
    if provenance.record_time is not None:
        fields["record_time"] = provenance.record_time.astimezone(UTC).isoformat()
    return {name: value for name, value in fields.items() if value}


def _provenance(fields: dict[str, Any]) -> Provenance:
    if "record_time" in fields:
        fields = {**fields, "record_time": datetime.fromisoformat(fields["record_time"])}
    return Provenance(**fields)


def _policy_fields(policy: Policy) -> dict[str, Any]:
    return {
        name: value.value if isinstance(value, enum.Enum) else value
        for name, value in asdict(policy).items()
        if name not in _FORMER_RULES or value != _FORMER_RULES[name]
    }


_LONG_HEADER_BYTES = 4_096  # shorter ones stay legible to people who look into Redis
# First byte of stored arrays. Older ones are a bare zlib stream, which begins with an `x`.
_PLAIN, _PLANES = b"=", b"#"


def _packed(arrays: bytes) -> bytes:
    planes = np.frombuffer(arrays, np.uint8).reshape(-1, 4).T.tobytes()
    compressed = zlib.compress(planes, level=1)
    return _PLANES + compressed if len(compressed) < len(arrays) else _PLAIN + arrays


def _packed_header(header: bytes) -> bytes:
    """Return JSON compressed where that pays; it begins with an ``x`` then, else with ``{``."""
    return zlib.compress(header) if len(header) > _LONG_HEADER_BYTES else header


def _unpacked_header(stored: bytes) -> bytes:
    return stored if stored.startswith(b"{") else zlib.decompress(stored)


def _unpacked(stored: bytes) -> bytes:
    kind, rest = stored[:1], stored[1:]
    if kind == _PLAIN:
        return rest
    if kind == _PLANES:
        planes = np.frombuffer(zlib.decompress(rest), np.uint8)
        return planes.reshape(4, -1).T.tobytes()
    return zlib.decompress(stored)


def _digest(header: bytes, arrays: bytes) -> str:
    return hashlib.sha256(header + b"\n" + arrays).hexdigest()
