"""What a run tells the advisor about itself."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any

from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2, policy_pb2, recipe_pb2
from fslr.errors import AttachError
from fslr.resource_names import DEFAULT_PROJECT, profile_name, run_name
from fslr.training.argument_checks import is_integer


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What a run tells the advisor about itself.

    Attributes:
        name: Name under which the run is stored. Empty: it is not stored.
        project: Project of the run and of its profile.
        total_steps: Planned number of optimizer steps; needed by policies that align by progress.
            0: unknown.
        batch_size: Examples per step. The advisor warns where the profile's differs. 0: unknown.
        loss_name: Name of the loss, such as ``cross-entropy``, for the same. Empty: unknown.
        policy: Rules to follow instead of the profile's own.
        ratios: How much larger the run is than its base in what layouts do not show, for recipes:
            ``head_size``, ``batch``, ``tokens`` and ``sequence``, above 0. Without them, ``batch``
            and ``tokens`` follow from batch sizes and numbers of steps where both are known.
    """

    name: str = ""
    project: str = DEFAULT_PROJECT
    total_steps: int = 0
    batch_size: int = 0
    loss_name: str = ""
    policy: policy_pb2.Policy | None = None
    ratios: Mapping[str, float] | None = None

    def opening(
        self,
        profile: str,
        layout: layout_pb2.Layout,
        *,
        optimizer: str,
        base_learning_rate: float,
        observe_only: bool = False,
        recipe: str = "",
    ) -> pb.RunOpening:
        """Return the message that opens the run.

        Args:
            profile: The reference, such as ``char-gpt``, ``char-gpt@3`` or ``char-gpt@prod``.
            layout: The model's groups.
            optimizer: Name of the optimizer.
            base_learning_rate: The largest learning rate that the schedule is built on.
            observe_only: Whether multipliers are not applied.
            recipe: Recipe to follow instead of the policy's: the name of one that comes with the
                service, or the resource name of a stored one. Empty: the policy's.

        Raises:
            AttachError: There is no such ratio, or it is not above 0; or a value has a different
                type.
        """
        if not isinstance(profile, str):
            raise AttachError(
                f"profile is {profile!r}; it must be the name of one, such as 'char-gpt@prod'"
            )
        self._check_types(recipe)
        return pb.RunOpening(
            profile=profile_name(profile, self.project),
            run=run_name(self.name, self.project) if self.name else "",
            layout=layout,
            optimizer=optimizer,
            base_learning_rate=base_learning_rate,
            total_steps=self.total_steps,
            policy=self.policy,
            observe_only=observe_only,
            batch_size=self.batch_size,
            loss_name=self.loss_name,
            recipe=recipe,
            training_ratios=_training_ratios(self.ratios),
        )

    def _check_types(self, recipe: str) -> None:
        """Refuse values that no message can hold.

        Raises:
            AttachError: There is one.
        """
        named = {"name": self.name, "project": self.project, "loss_name": self.loss_name}
        for name, value in {**named, "recipe": recipe}.items():
            if value is not None and not isinstance(value, str):
                raise AttachError(f"{name} is {value!r}; it must be a string")
        _check_count("total_steps", self.total_steps)
        _check_count("batch_size", self.batch_size)
        if not isinstance(self.policy, (policy_pb2.Policy, Mapping, NoneType)):
            raise AttachError(
                f"policy is {self.policy!r}; it must be a message with rules, such as "
                "Policy(max_interval_steps=100); a stored policy belongs to its profile"
            )


def _training_ratios(ratios: Mapping[str, float] | None) -> recipe_pb2.TrainingRatios | None:
    """Return ratios as a message.

    Raises:
        AttachError: There is no such ratio, or it is not above 0.
    """
    if ratios is None:
        return None
    if not isinstance(ratios, Mapping):
        raise AttachError(f"ratios is {ratios!r}; it must be a dict, such as {{'batch': 4}}")
    known = list(recipe_pb2.TrainingRatios.DESCRIPTOR.fields_by_name)
    for name, ratio in ratios.items():
        if name not in known:
            raise AttachError(f"there is no ratio {name!r}; known are {', '.join(known)}")
        if not (isinstance(ratio, numbers.Real) and 0 < ratio < math.inf):
            raise AttachError(
                f"the ratio {name} is {ratio!r}; it must be the run's value over the base's, a "
                "finite number above 0"
            )
    return recipe_pb2.TrainingRatios(**ratios)


def run_info(run: str | RunInfo, total_steps: int) -> RunInfo:
    """Return what is known of a run.

    Args:
        run: Its name, or all that is known of it.
        total_steps: Planned number of optimizer steps; 0: unknown, or in the RunInfo.

    Raises:
        AttachError: The run is neither; or the total number of steps is not a number, or is given
            twice and differs.
    """
    _check_count("total_steps", total_steps)
    if isinstance(run, str):
        return RunInfo(name=run, total_steps=total_steps)
    if not isinstance(run, RunInfo):
        raise AttachError(
            f"run is {run!r}; it must be the name of the run, or a fslr.RunInfo; without a name, "
            "leave it out"
        )
    if total_steps and run.total_steps and total_steps != run.total_steps:
        raise AttachError(
            f"total_steps is {total_steps}, and {run.total_steps} in the RunInfo; give it once"
        )
    return replace(run, total_steps=total_steps or run.total_steps)


def _check_count(name: str, value: Any) -> None:
    if value is not None and not is_integer(value, least=0):
        raise AttachError(f"{name} is {value!r}; it must be an integer of at least 0; 0: unknown")
