"""The curves of a profile: unit rates by role over the recorded training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from advisor.policy.arrays import Floats
from advisor.report.parts import Parts, by_role
from advisor.wire.layouts import layout_from_proto
from fslr.advisor.v1 import profile_pb2


@dataclass(frozen=True, slots=True, eq=False)
class ProfileCurves:
    """Unit rates of a profile by role.

    Attributes:
        roles: The roles.
        steps: The recorded steps, shape [points].
        unit_rates: Geometric mean of the unit rates of each role's groups, in output units per
            learning rate, shape [points, roles]; 0 if one of them is 0.
        spreads: Mean spread of each role between recordings, the standard deviation of the
            logarithm, shape [points, roles]; None: the profile has one recording.
        learning_rates: Scheduled learning rate at each point, shape [points]; NaN: unknown.
    """

    roles: tuple[str, ...]
    steps: Floats
    unit_rates: Floats
    spreads: Floats | None
    learning_rates: Floats

    @classmethod
    def of(cls, content: profile_pb2.ProfileContent) -> ProfileCurves:
        """Return the curves of a profile's content.

        Raises:
            InvalidValueError: The layout is not valid.
        """
        roles = by_role(layout_from_proto(content.layout))
        points = content.points
        has_spreads = bool(points) and all(len(point.spreads) for point in points)
        return cls(
            roles.names,
            np.array([point.step for point in points], np.float64),
            np.array([roles.geometric_means(np.array(point.unit_rates)) for point in points]),
            np.array([_means(roles, point.spreads) for point in points]) if has_spreads else None,
            np.array([
                point.learning_rate if point.HasField("learning_rate") else np.nan
                for point in points
            ]),
        )


def _means(roles: Parts, values: object) -> Floats:
    means: Floats = roles.sums(np.array(values, np.float64)) / np.array(roles.group_counts)
    return means
