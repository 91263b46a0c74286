"""Encodes profiles in a canonical form: equal content has equal bytes and an equal digest.

A profile consists of a header and arrays. The header is JSON with sorted keys and without spaces.
It spells out every rule of the policy, so that a change of a default does not affect stored
profiles. Empty fields (no alias, no template, no shapes) are left out, so that content without them
keeps its digest. The arrays follow one another in C order and little-endian: steps (int64), unit
rates and relative errors (float32) and, if known, coherences (float32), scheduled learning rates
(float64), spreads (float32), and RMS of weights and of updates (float32).

The digest is the SHA-256 of the header, a newline, and the arrays, before compression. Header and
arrays are stored compressed if that makes them smaller. For compression the arrays are treated as
4-byte numbers, and their bytes are grouped by position (all first bytes, then all second bytes,
...), because the leading bytes of rates are similar.

A summary is stored separately, for lists: the header without the layout.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advisor.errors import ProfileDamagedError, ProfileTooNewError
from advisor.policy import (
    Alignment,
    DepthRule,
    Group,
    GroupAlias,
    GroupKind,
    Layout,
    Policy,
    PriorRule,
    UnmatchedRule,
    WeightDecayRule,
)
from advisor.registry.profiles import ProfileContent, ProfileHeader, ProfileSummary, Provenance

_FORMAT = 1
_OPTIONAL = ("coherences", "learning_rates", "spreads", "weight_rms", "update_rms")


@dataclass(frozen=True, slots=True)
class EncodedProfile:
    """A profile in its stored form.

    Attributes:
        digest: SHA-256 of the content, in lower-case hexadecimal.
        header: Canonical JSON, compressed if it is long.
        arrays: The arrays, compressed if that makes them smaller.
        summary: The part that lists show: JSON without layout and arrays.
    """

    digest: str
    header: bytes
    arrays: bytes
    summary: bytes = b""


def encode(content: ProfileContent) -> EncodedProfile:
    """Return the canonical bytes of a profile and their digest."""
    fields = _header_fields(content)
    header = canonical(fields)
    listed = {name: value for name, value in fields.items() if name != "tensors"}
    summary = canonical({**listed, "layout": [], "groups": len(content.header.layout)})
    parts: list[tuple[NDArray[Any] | None, str]] = [
        (content.steps, "<i8"),
        (content.unit_rates, "<f4"),
        (content.relative_errors, "<f4"),
        (content.coherences, "<f4"),
        (content.learning_rates, "<f8"),
        (content.spreads, "<f4"),
        (content.weight_rms, "<f4"),
        (content.update_rms, "<f4"),
    ]
    arrays = b"".join(part.astype(kind).tobytes() for part, kind in parts if part is not None)
    return EncodedProfile(
        _digest(header, arrays),
        _compress_header(header),
        _compress_arrays(arrays),
        _compress_header(summary),
    )


def decode(encoded: EncodedProfile) -> ProfileContent:
    """Return the profile from its stored form.

    Raises:
        ProfileDamagedError: The bytes do not match the digest.
        ProfileTooNewError: The bytes match, but a newer service wrote them.
    """
    try:
        text, arrays = _decompress_header(encoded.header), _decompress_arrays(encoded.arrays)
    except (zlib.error, ValueError):
        raise ProfileDamagedError(encoded.digest) from None
    if _digest(text, arrays) != encoded.digest:
        raise ProfileDamagedError(encoded.digest)
    try:
        fields: dict[str, Any] = json.loads(text)
        header = _header(fields)
    except (ValueError, TypeError, KeyError):
        raise ProfileTooNewError(encoded.digest) from None
    found = _split_arrays(arrays, fields["points"], header, fields.get("optional", []))
    return ProfileContent(
        header,
        found["steps"],
        found["unit_rates"],
        found["relative_errors"],
        coherences=found.get("coherences"),
        learning_rates=found.get("learning_rates"),
        spreads=found.get("spreads"),
        weight_rms=found.get("weight_rms"),
        update_rms=found.get("update_rms"),
    )


def _split_arrays(
    arrays: bytes, points: int, header: ProfileHeader, optional: list[str]
) -> dict[str, NDArray[Any]]:
    """Return the arrays by name; ``optional`` names the optional ones that are present."""
    per_point, per_group = (points,), (points, len(header.layout))
    forms = {
        "steps": ("<i8", per_point),
        "unit_rates": ("<f4", per_group),
        "relative_errors": ("<f4", per_group),
        "coherences": ("<f4", (points, len(header.layout.roles))),
        "learning_rates": ("<f8", per_point),
        "spreads": ("<f4", per_group),
        "weight_rms": ("<f4", per_group),
        "update_rms": ("<f4", per_group),
    }
    found: dict[str, NDArray[Any]] = {}
    offset = 0
    for name, (kind, shape) in forms.items():
        if name in _OPTIONAL and name not in optional:
            continue
        found[name] = np.frombuffer(arrays, kind, math.prod(shape), offset).reshape(shape)
        offset += found[name].nbytes
    return found


def decode_summary(digest: str, summary: bytes) -> ProfileSummary:
    """Return a profile's summary for lists.

    Args:
        digest: The profile's digest, for errors; the summary is not checked against it.
        summary: The stored summary.

    Raises:
        ProfileDamagedError: The summary cannot be read.
    """
    try:
        fields: dict[str, Any] = json.loads(_decompress_header(summary))
        return ProfileSummary(_header({**fields, "layout": None}), fields["groups"])
    except (zlib.error, ValueError, TypeError, KeyError):
        raise ProfileDamagedError(digest) from None


def decode_policy_name(header: bytes) -> str:
    """Return the stored policy that a header names; empty if there is none, or it is damaged."""
    return str(_plain_header(header).get("policy_name", ""))


def decode_recipe_name(header: bytes) -> str:
    """Return the recipe that a header's rules name; empty if there is none, or it is damaged."""
    policy = _plain_header(header).get("policy")
    return recipe_name_in(policy) if isinstance(policy, dict) else ""


def recipe_name_in(rules: Mapping[str, Any] | bytes) -> str:
    """Return the recipe that stored rules name; empty if there is none, or they are damaged."""
    try:
        fields = json.loads(rules) if isinstance(rules, bytes) else rules
        return str(fields.get("recipe", ""))
    except (ValueError, AttributeError):
        return ""


def _plain_header(header: bytes) -> dict[str, Any]:
    """Return a header as plain data; empty if it is damaged."""
    try:
        fields = json.loads(_decompress_header(header))
    except (zlib.error, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}


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
        excludes_weight_decay=fields.get("excludes_weight_decay", False),
        mask=fields.get("mask", ""),
    )


def _layout(fields: dict[str, Any]) -> Layout:
    if fields["layout"] is None:
        return Layout(())  # a summary
    tensors: dict[str, list[Any]] = fields.get("tensors", {})
    initial_rms = tensors.pop("initial_rms", ())
    return Layout.of(
        [
            _group(group, {name: column[i] for name, column in tensors.items()})
            for i, group in enumerate(fields["layout"])
        ],
        fields.get("role_templates", ()),
        fields.get("frozen", ()),
        fields.get("frozen_sizes", ()),
        initial_rms,
    )


def _group(fields: list[Any], tensor: dict[str, Any]) -> Group:
    plain, inner = fields[:5], fields[5:]
    if "kind" in tensor:
        tensor["kind"] = GroupKind(tensor["kind"])
    if "shape" in tensor:
        tensor["shape"] = tuple(tensor["shape"])
    return Group(*plain, *(tuple(axis) for axis in inner), **tensor)


def _tensor_columns(layout: Layout) -> dict[str, Any]:
    """Return what is known of the groups' tensors: a list over all groups for each property.

    A property that is unknown for all groups is left out.
    """
    columns: dict[str, list[Any]] = {
        "shape": [group.shape for group in layout.groups],
        "fan_in": [group.fan_in for group in layout.groups],
        "fan_out": [group.fan_out for group in layout.groups],
        "optimizer": [group.optimizer for group in layout.groups],
    }
    known = {name: column for name, column in columns.items() if any(column)}
    if any(group.kind is not GroupKind.UNKNOWN for group in layout.groups):
        known["kind"] = [group.kind.value for group in layout.groups]
    residual = [group.residual_output for group in layout.groups]
    if any(stated is not None for stated in residual):
        known["residual_output"] = residual
    if layout.initial_rms:
        known["initial_rms"] = list(layout.initial_rms)
    return {"tensors": known} if known else {}


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
        **_tensor_columns(header.layout),
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
        **({"excludes_weight_decay": True} if header.excludes_weight_decay else {}),
        **({"mask": header.mask} if header.mask else {}),
        **({"aliases": [[a.pattern, a.target] for a in header.aliases]} if header.aliases else {}),
    }


def encode_policy(policy: Policy) -> bytes:
    """Return a policy's rules as canonical JSON."""
    return canonical(_policy_fields(policy))


def canonical(fields: dict[str, Any]) -> bytes:
    """Return plain data as JSON with sorted keys and without spaces."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def decode_policy(rules: bytes) -> Policy:
    """Return the policy from canonical JSON."""
    return _policy(json.loads(rules))


# Rules that were added later, with the values that have the behavior from before. Policies stored
# without them keep their behavior and their digest.
_RULES_ADDED_LATER: dict[str, Any] = {
    "averaging_window": 0.0,
    "prior": PriorRule.NONE,
    "correction_bound": 2.0,
    "lower_correction_bound": 4.0,
    "rise_limit": None,
    "max_relative_update": None,
    "weight_decay": WeightDecayRule.COUPLED,
    "dense_start_steps": 0,
    "reference_smoothing": 0.0,
    "min_multiplier_without_prior": 2.0**-10,
    "max_multiplier_without_prior": 2.0**10,
    "multiplier_values_per_octave": 0,
    "recipe": "",
}


def _policy(fields: dict[str, Any]) -> Policy:
    kinds = {
        "depth_rule": DepthRule,
        "alignment": Alignment,
        "unmatched_rule": UnmatchedRule,
        "prior": PriorRule,
        "weight_decay": WeightDecayRule,
    }
    rules = {**_RULES_ADDED_LATER, **fields}
    return Policy(**{**rules, **{name: kind(rules[name]) for name, kind in kinds.items()}})


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
        if name not in _RULES_ADDED_LATER or value != _RULES_ADDED_LATER[name]
    }


_LONG_HEADER_BYTES = 4_096  # shorter headers stay readable for people who look into Redis
# First byte of stored arrays. The oldest ones are a bare zlib stream, which starts with `x`.
_PLAIN, _PLANES = b"=", b"#"


def _compress_arrays(arrays: bytes) -> bytes:
    planes = np.frombuffer(arrays, np.uint8).reshape(-1, 4).T.tobytes()
    compressed = zlib.compress(planes, level=1)
    return _PLANES + compressed if len(compressed) < len(arrays) else _PLAIN + arrays


def _compress_header(header: bytes) -> bytes:
    """Return JSON, compressed if it is long; compressed JSON starts with ``x`` instead of ``{``."""
    return zlib.compress(header) if len(header) > _LONG_HEADER_BYTES else header


def _decompress_header(stored: bytes) -> bytes:
    return stored if stored.startswith(b"{") else zlib.decompress(stored)


def _decompress_arrays(stored: bytes) -> bytes:
    kind, rest = stored[:1], stored[1:]
    if kind == _PLAIN:
        return rest
    if kind == _PLANES:
        planes = np.frombuffer(zlib.decompress(rest), np.uint8)
        return planes.reshape(4, -1).T.tobytes()
    return zlib.decompress(stored)


def _digest(header: bytes, arrays: bytes) -> str:
    return hashlib.sha256(header + b"\n" + arrays).hexdigest()
