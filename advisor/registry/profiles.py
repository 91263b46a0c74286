"""Profiles: their content and their registered versions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from advisor.policy import (
    GroupAlias,
    InvalidValueError,
    Layout,
    Policy,
    Profile,
    recording_flaws,
    shown,
)
from advisor.policy.control_characters import check_text
from advisor.registry.resource_names import ProfileName, ProfileReference

_REQUIRED_PROVENANCE = (
    *("model", "width", "depth", "optimizer", "batch_size"),
    *("dataset", "commit", "author", "record_time"),
)
_METHOD = re.compile(r"[a-z0-9-]{1,63}")
_LABEL_KEY = re.compile(r"[a-z0-9_.-]{1,63}")
MAX_LABELS = 64
_MAX_LABEL_CHARACTERS = 255
_MAX_DOCS_CHARACTERS = 65_536
_MAX_WORDS_CHARACTERS = 1_024


def check_words(field_name: str, text: str, *, max_characters: int = _MAX_WORDS_CHARACTERS) -> None:
    """Refuse a text that is too long for one line, or has control characters.

    Raises:
        InvalidValueError: The text is too long or contains a control character.
    """
    check_text(field_name, text)
    if len(text) > max_characters:
        raise InvalidValueError(
            field_name,
            f"{len(text)} characters, but at most {max_characters} are allowed",
        )


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a profile was recorded, as stated by the recording client.

    All of it is optional for a profile in a file. Registration requires :meth:`check_complete`.

    Attributes:
        model: The base model.
        optimizer: The optimizer's name.
        batch_size: Examples per step; 0: unknown.
        dataset: The data.
        commit: Revision of the training code.
        author: Who recorded it.
        width: Width of the model; 0: unknown.
        depth: Number of blocks; 0: unknown.
        method: The method of measurement; empty: function-space learning rates.
        record_time: When it was recorded, UTC; None: unknown.
        loss_name: Name of the loss; empty: unknown.
        recordings: Number of recordings merged into it; 0: one.
    """

    model: str = ""
    optimizer: str = ""
    batch_size: int = 0
    dataset: str = ""
    commit: str = ""
    author: str = ""
    width: int = 0
    depth: int = 0
    method: str = ""
    record_time: datetime | None = None
    loss_name: str = ""
    recordings: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("batch_size", "width", "depth", "recordings"):
            if getattr(self, name) < 0:
                raise InvalidValueError(f"provenance.{name}", f"{getattr(self, name)} is below 0")
        if self.method and not _METHOD.fullmatch(self.method):
            raise InvalidValueError(
                "provenance.method", f"{shown(self.method)} is not 1 to 63 characters of [a-z0-9-]"
            )
        for name in ("model", "optimizer", "dataset", "commit", "author", "loss_name"):
            check_words(f"provenance.{name}", getattr(self, name))

    def check_complete(self) -> None:
        """Refuse an incomplete provenance.

        Raises:
            InvalidValueError: Values that registration requires are missing; the error lists all.
        """
        missing = [name for name in _REQUIRED_PROVENANCE if not getattr(self, name)]
        if missing:
            raise InvalidValueError(
                "provenance",
                f"{', '.join(missing)} missing; a registered profile states its model, data and "
                "code, who recorded it and when; add them to the provenance of the file, or to the "
                "fslr.Provenance of the recorder",
            )


@dataclass(frozen=True, slots=True)
class ProfileHeader:
    """The content of a profile except its recorded points.

    Attributes:
        layout: The base model's groups.
        base_learning_rate: The learning rate that is transferred, above 0.
        total_steps: Planned optimizer steps of the recorded training.
        policy: The rules for runs on the profile.
        provenance: How it was recorded.
        labels: Key-value pairs to filter lists by.
        docs: A written guideline, in Markdown.
        aliases: Alternative spellings of the groups.
        policy_name: The stored policy that runs use instead of ``policy``; empty: none.
        excludes_weight_decay: Whether the unit rates are those of the update without its weight
            decay.
        mask: What weighs the output elements that the unit rates are averages over; empty: all
            count the same.
    """

    layout: Layout
    base_learning_rate: float
    total_steps: int
    policy: Policy = field(default_factory=Policy)
    provenance: Provenance = field(default_factory=Provenance)
    labels: Mapping[str, str] = field(default_factory=dict)
    docs: str = ""
    aliases: tuple[GroupAlias, ...] = ()
    policy_name: str = ""
    excludes_weight_decay: bool = False
    mask: str = ""

    def __post_init__(self) -> None:
        """Check the ranges that the policy does not check."""
        if len(self.labels) > MAX_LABELS:
            raise InvalidValueError(
                "labels", f"{len(self.labels)} labels, but at most {MAX_LABELS} are allowed"
            )
        for key, value in self.labels.items():
            if not _LABEL_KEY.fullmatch(key):
                raise InvalidValueError(
                    "labels", f"the key {shown(key)} is not 1 to 63 characters of [a-z0-9_.-]"
                )
            check_text(f"labels[{key}]", value)
            if len(value) > _MAX_LABEL_CHARACTERS:
                raise InvalidValueError(
                    f"labels[{key}]",
                    f"{len(value)} characters, but at most {_MAX_LABEL_CHARACTERS} are allowed",
                )
        check_words("mask", self.mask)
        check_text("docs", self.docs)
        if len(self.docs) > _MAX_DOCS_CHARACTERS:
            raise InvalidValueError(
                "docs",
                f"{len(self.docs)} characters, but at most {_MAX_DOCS_CHARACTERS} are allowed",
            )


@dataclass(frozen=True, slots=True, eq=False)
class ProfileContent:
    """The content of a profile; immutable once registered.

    Attributes:
        header: Everything except the points.
        steps: Step of each recorded point, shape [points], int64.
        unit_rates: Recorded unit rates, shape [points, groups], float32.
        relative_errors: Their relative errors, shape [points, groups]; 0 where unknown.
        coherences: Mean correlation of the blocks' changes, shape [points, roles]; None: unknown.
        learning_rates: Scheduled learning rates, absolute, shape [points]; None: unknown.
        spreads: Standard deviation of the logarithms of the unit rates between the merged
            recordings, shape [points, groups]; None: one recording.
        weight_rms: RMS of each group's weights, shape [points, groups], float32; None: unknown.
        update_rms: RMS of each group's update of an lr = 1 step, likewise.
    """

    header: ProfileHeader
    steps: NDArray[np.int64]
    unit_rates: NDArray[np.float32]
    relative_errors: NDArray[np.float32]
    coherences: NDArray[np.float32] | None = None
    learning_rates: NDArray[np.float64] | None = None
    spreads: NDArray[np.float32] | None = None
    weight_rms: NDArray[np.float32] | None = None
    update_rms: NDArray[np.float32] | None = None

    def profile(self) -> Profile:
        """Check the content, and return the part that recommendations need.

        Raises:
            InvalidValueError: A value is out of its range.
        """
        header = self.header
        if self.spreads is not None:
            bad = np.argwhere(~(np.isfinite(self.spreads) & (self.spreads >= 0)))
            if bad.size:
                point, group = (int(v) for v in bad[0])
                raise InvalidValueError(
                    f"points[{point}].spreads[{group}]",
                    f"{self.spreads[point, group]} is not a finite number of at least 0",
                )
        return Profile(
            layout=header.layout,
            steps=self.steps,
            unit_rates=self.unit_rates,
            relative_errors=self.relative_errors,
            base_learning_rate=header.base_learning_rate,
            total_steps=header.total_steps,
            policy=header.policy,
            aliases=header.aliases,
            coherences=self.coherences,
            learning_rates=self.learning_rates,
            weight_rms=self.weight_rms,
            update_rms=self.update_rms,
            excludes_weight_decay=header.excludes_weight_decay,
            mask=header.mask,
        )

    def warnings(self) -> list[str]:
        """Return what is doubtful about the recording, in words.

        Raises:
            InvalidValueError: A value is out of its range.
        """
        return [flaw.message for flaw in recording_flaws(self.profile())]


@dataclass(frozen=True, slots=True)
class ProfileSummary:
    """The part of a profile that lists return.

    Attributes:
        header: The header, with an empty layout.
        group_count: Number of groups of the layout.
    """

    header: ProfileHeader
    group_count: int


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """A registered version without its content.

    Attributes:
        name: The profile.
        version: The version number, at least 1.
        digest: SHA-256 of the content, lower-case hexadecimal.
        create_time: When it was registered, UTC.
        aliases: Its current aliases, sorted.
    """

    name: ProfileName
    version: int
    digest: str
    create_time: datetime
    aliases: tuple[str, ...] = ()

    @property
    def reference(self) -> ProfileReference:
        """The resource name with the version."""
        return ProfileReference(self.name, str(self.version))


@dataclass(frozen=True, slots=True)
class Alias:
    """A movable name for a version.

    Attributes:
        name: The alias.
        version: The version that it names.
        moves: How often it was created, moved or deleted; never decreases.
    """

    name: str
    version: int
    moves: int


@dataclass(frozen=True, slots=True)
class ProfileVersion:
    """A registered version with its content, and the profile's aliases and versions at that time.

    Attributes:
        info: Name, version and digest.
        content: The content.
        aliases: All aliases of the profile, by name.
        versions: All versions of the profile, in increasing order.
    """

    info: VersionInfo
    content: ProfileContent
    aliases: tuple[Alias, ...] = ()
    versions: tuple[int, ...] = ()
