"""Groups: the parameters that share one multiplier, with what is known of their tensor."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from advisor.policy.control_characters import check_controls
from advisor.policy.counts import count_of
from advisor.policy.errors import InvalidValueError

MAX_NAME_CHARACTERS = 512
MAX_GROUPS = 20_000
MAX_DIMENSIONS = 8
MAX_SIZE = 2**62  # of a dimension or a fan; larger ones do not fit the contract
MAX_OPTIMIZER_CHARACTERS = 1_024


class GroupKind(enum.Enum):
    """What a group's tensor does in its model, as far as learning rates depend on it."""

    UNKNOWN = "unknown"
    EMBEDDING = "embedding"  # a table of tokens or positions, even if it is also the readout
    HIDDEN = "hidden"  # inputs and outputs grow with the width
    READOUT = "readout"  # inputs grow with the width, outputs are the model's
    VECTOR = "vector"  # a bias, a gain or another tensor of one dimension or less
    CONVOLUTION = "convolution"
    ROUTER = "router"  # distributes tokens among experts
    EXPERT = "expert"
    ADAPTER_A = "adapter a"  # reads the layer's input (LoRA's A)
    ADAPTER_B = "adapter b"  # writes the layer's output (LoRA's B)
    INPUT = "input"  # inputs are the model's own, outputs grow with the width


@dataclass(frozen=True, slots=True)
class Group:
    """The parameters that share one multiplier.

    Attributes:
        name: The parameter's name, 1 to 512 characters.
        role: The name without its block index; empty: derived from the name.
        depth_index: Position among the parameters of the same role, from 0 at the input.
        depth_count: Number of positions of the role, at least 1 if the role is given.
        parameter_count: Number of scalar parameters; 0: unknown.
        inner_indices: If a role has several indices (stage and block, layer and expert), the
            positions along the further ones, outermost first.
        inner_counts: Number of positions along each of them, inside the same outer block.
        shape: Size along each dimension, each at least 1, at most 8; empty: unknown, or a scalar.
        fan_in: Number of inputs that one output sums over; of an embedding the number of its rows,
            of a vector 1; 0: unknown.
        fan_out: Number of outputs that one input takes part in; of an embedding the length of its
            rows, of a vector its length; 0: unknown.
        kind: What the tensor does in its model.
        optimizer: Name of the optimizer that updates the group, if it is not the run's or the
            profile's; empty: that one.
        residual_output: Whether the output of the group's module is added to the residual stream,
            as that of an attention's output projection; None: unknown, see
            :mod:`advisor.policy.residual_outputs`.
    """

    name: str
    role: str = ""
    depth_index: int = 0
    depth_count: int = 0
    parameter_count: int = 0
    inner_indices: tuple[int, ...] = ()
    inner_counts: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    fan_in: int = 0
    fan_out: int = 0
    kind: GroupKind = GroupKind.UNKNOWN
    optimizer: str = ""
    residual_output: bool | None = None

    @property
    def indices(self) -> tuple[int, ...]:
        """Position along each index of the role, outermost first."""
        return (self.depth_index, *self.inner_indices)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of positions along each index of the role."""
        return (self.depth_count, *self.inner_counts)


def check_group(path: str, group: Group) -> None:
    """Refuse a group with a value out of its range.

    Args:
        path: Path of the group, such as ``groups[3]``.
        group: The group.

    Raises:
        InvalidValueError: A name is too long or empty, or a number is out of its range.
    """
    for attribute, text in (("name", group.name), ("role", group.role)):
        if len(text) > MAX_NAME_CHARACTERS:
            raise InvalidValueError(
                f"{path}.{attribute}",
                f"{len(text)} characters, but at most {MAX_NAME_CHARACTERS} are allowed",
            )
        check_controls(f"{path}.{attribute}", text)
    if not group.name:
        raise InvalidValueError(f"{path}.name", "empty; give the parameter's name")
    if group.parameter_count < 0:
        raise InvalidValueError(f"{path}.parameter_count", f"{group.parameter_count} is below 0")
    if group.role:
        _check_given_position(path, group)
    _check_tensor(path, group)


def _check_given_position(path: str, group: Group) -> None:
    if not 0 <= group.depth_index < group.depth_count:
        raise InvalidValueError(
            f"{path}.depth_index",
            f"{group.depth_index} is not in [0, depth_count = {group.depth_count})",
        )
    if group.depth_count > MAX_GROUPS:
        raise InvalidValueError(f"{path}.depth_count", f"{group.depth_count} is above {MAX_GROUPS}")
    if len(group.inner_indices) != len(group.inner_counts):
        raise InvalidValueError(
            f"{path}.inner_counts",
            f"{count_of(len(group.inner_counts), 'entry')}, but inner_indices has "
            f"{len(group.inner_indices)}; give one for each",
        )
    for i, (inner, count) in enumerate(zip(group.inner_indices, group.inner_counts, strict=True)):
        if not (0 <= inner < count <= MAX_GROUPS):
            raise InvalidValueError(
                f"{path}.inner_indices[{i}]",
                f"{inner} is not in [0, inner_counts[{i}] = {count}), or that is above "
                f"{MAX_GROUPS}",
            )


def _check_tensor(path: str, group: Group) -> None:
    """Refuse a shape, fans or an optimizer that no tensor has."""
    if len(group.shape) > MAX_DIMENSIONS:
        raise InvalidValueError(
            f"{path}.shape",
            f"{len(group.shape)} dimensions, but at most {MAX_DIMENSIONS} are allowed; leave it "
            "empty",
        )
    for i, size in enumerate(group.shape):
        if not 1 <= size <= MAX_SIZE:
            raise InvalidValueError(
                f"{path}.shape[{i}]", f"{size} is not in [1, {MAX_SIZE}]; leave the shape empty"
            )
    if group.shape and group.parameter_count and math.prod(group.shape) != group.parameter_count:
        raise InvalidValueError(
            f"{path}.parameter_count",
            f"{group.parameter_count}, but the shape {' x '.join(map(str, group.shape))} has "
            f"{math.prod(group.shape)} entries; correct one of the two, or leave one empty",
        )
    for attribute, fan in (("fan_in", group.fan_in), ("fan_out", group.fan_out)):
        if not 0 <= fan <= MAX_SIZE:
            raise InvalidValueError(f"{path}.{attribute}", f"{fan} is not in [0, {MAX_SIZE}]")
    if len(group.optimizer) > MAX_OPTIMIZER_CHARACTERS:
        raise InvalidValueError(
            f"{path}.optimizer",
            f"{len(group.optimizer)} characters, but at most {MAX_OPTIMIZER_CHARACTERS} are "
            "allowed",
        )
    check_controls(f"{path}.optimizer", group.optimizer)
