"""Where exported multipliers come from: an answer of the advisor, or the history of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from advisor.export.errors import ExportError
from advisor.export.rows import Export, ExportRow, RecipeRow, significant, trainer_names
from advisor.policy.arrays import Floats
from advisor.policy.counts import count_of
from advisor.report.words import outcome_word, short_name
from advisor.wire.layouts import layout_from_proto
from fslr.advisor.v1 import advisor_service_pb2, layout_pb2, policy_pb2, run_service_pb2

DEFAULT_AVERAGE = 0.5


@dataclass(frozen=True, slots=True)
class AveragedMultipliers:
    """The multipliers of a part of a run.

    Attributes:
        multipliers: Geometric means over steps, shape [groups].
        first_step: Where the part starts.
        last_step: Where it ends.
        measurements: Number of measurements whose answers were in force in it.
    """

    multipliers: Floats
    first_step: int
    last_step: int
    measurements: int


def of_answer(
    request: advisor_service_pb2.RecommendLRRequest,
    answer: advisor_service_pb2.RecommendLRResponse,
    profile: str = "",
) -> Export:
    """Return the multipliers of one answer, to a request with or without a measurement.

    Args:
        request: The opening and, if there is one, the measurement; unit rates that are all 0 mean
            that nothing is measured.
        answer: The answer.
        profile: What a person calls the profile; empty: as the answer does.

    Raises:
        ExportError: Nothing is measured, and the profile or the layout says too little for any
            prior.
        InvalidValueError: The layout is out of range.
    """
    is_measured = any(request.measurement.unit_rates)
    if not is_measured and not any(answer.priors):
        raise ExportError(
            "every multiplier would be 1: nothing is measured, and no group has a prior. Write "
            "the layout with fslr.save_layout, which says what each tensor is, and use a profile "
            "whose layout says it too, or a layout file with a measurement"
        )
    priors = sum(prior > 0 for prior in answer.priors)
    origin = (
        f"From profile {profile or short_name(answer.profile)} (digest {answer.digest[:12]}): "
        + (
            f"the answer to the measurement at step {answer.step}"
            if is_measured
            else f"priors from {'the recipe' if answer.recipe else 'shapes'} for {priors} of "
            f"{len(answer.multipliers)} parameters, without a measurement"
        ),
    )
    outcomes = [outcome_word(outcome) for outcome in answer.outcomes]
    if not is_measured:
        outcomes = [
            _word_without_measurement(outcome, prior)
            for outcome, prior in zip(answer.outcomes, answer.priors, strict=True)
        ]
    notes = [
        *_unadvised(answer.outcomes),
        *([] if is_measured else _without_prior(answer.priors, answer.outcomes)),
        *(warning.message for warning in answer.warnings),
    ]
    return _export(request.opening, list(answer.multipliers), outcomes, origin, notes)


def with_recipe(export: Export, answer: advisor_service_pb2.RecommendLRResponse | None) -> Export:
    """Return an export with what a recipe says beside learning rates.

    Args:
        export: The multipliers.
        answer: The answer to the opening without a measurement; None: the service gives none.
    """
    if answer is None or not answer.recipe:
        return export
    factors = answer.recipe_factors
    rows = tuple(
        replace(
            row,
            decay_factor=significant(factors.weight_decays[i]),
            recipe=RecipeRow(
                factors.learning_rates[i],
                significant(factors.epsilons[i]),
                significant(factors.one_minus_beta1s[i]),
                significant(factors.one_minus_beta2s[i]),
                significant(factors.initial_rms[i]) if factors.initial_rms[i] >= 0 else None,
            ),
        )
        for i, row in enumerate(export.rows)
    )
    origin = f"Factors of the recipe {short_name(answer.recipe)}"
    notes = [f"The recipe holds only if: {condition}" for condition in factors.conditions]
    if any(row.recipe is not None and row.recipe.initial_rms is not None for row in rows):
        notes.append(
            "The recipe also scales initial values, which no setting of a trainer does: before the "
            "first step, scale each parameter to its `initial_rms` in the format csv or pytorch"
        )
    return replace(
        export,
        rows=rows,
        origin=(*export.origin, origin),
        notes=(*export.notes, *notes),
    )


def of_run(
    run: run_service_pb2.Run, events: Sequence[run_service_pb2.RunEvent], average: float
) -> Export:
    """Return the multipliers of a run.

    Args:
        run: The run.
        events: Its history, oldest first.
        average: Fraction of the run, at its end, over which multipliers are averaged, in [0, 1];
            0: the last ones.

    Raises:
        ExportError: No measurement of the run's layout was answered.
    """
    groups = len(run.opening.layout.groups)
    answered = [e for e in events if len(e.recommendation.multipliers) == groups]
    if not answered:
        earlier = " of an earlier layout" if events else ""
        raise ExportError(
            f"run {short_name(run.name)} has {len(events)} answers{earlier}, and none to a "
            "measurement of its layout; wait for the first one"
        )
    last = answered[-1]
    found = averaged(answered, average, run.opening.total_steps)
    how = (
        f"the last multipliers, answered at step {last.measurement.step}"
        if average == 0
        else f"geometric means of the multipliers over steps {found.first_step} to "
        f"{found.last_step}, {found.measurements} answers"
    )
    profile = short_name(last.recommendation.profile)
    origin = (f"From run {short_name(run.name)} (profile {profile}): {how}",)
    notes = list(_unadvised(last.recommendation.outcomes))
    if run.opening.observe_only:
        notes.append("The run only observed: it did not apply these multipliers")
    outcomes = [outcome_word(outcome) for outcome in last.recommendation.outcomes]
    export = _export(run.opening, found.multipliers.tolist(), outcomes, origin, notes)
    factors = _base_factors(answered, groups)
    rows = zip(export.rows, factors, strict=True)
    return replace(export, rows=tuple(replace(row, base_factor=factor) for row, factor in rows))


def averaged(
    events: Sequence[run_service_pb2.RunEvent], average: float, total_steps: int = 0
) -> AveragedMultipliers:
    """Return geometric means of multipliers over the last part of a run, weighted by steps.

    Args:
        events: Answers, oldest first, at least one. Those that a run repeated after it was resumed
            from an earlier step are left out.
        average: Fraction of the steps, at the end; 0: only the last answer.
        total_steps: Planned steps of the run; 0: unknown.
    """
    kept = [events[-1]]
    for event in reversed(events[:-1]):
        if event.measurement.step < kept[-1].measurement.step:
            kept.append(event)
    kept.reverse()
    starts = [event.measurement.step for event in kept]
    end = max(kept[-1].recommendation.next_measurement_step, starts[-1] + 1)
    if total_steps > starts[-1]:
        end = min(end, total_steps)
    first = starts[-1] if average == 0 else end - average * (end - starts[0])
    ends = [*starts[1:], end]
    steps = np.array([e - max(s, first) for s, e in zip(starts, ends, strict=True)]).clip(min=0)
    logarithms = np.log([list(event.recommendation.multipliers) for event in kept])
    means = np.exp(steps @ logarithms / steps.sum())
    return AveragedMultipliers(
        np.asarray(means, dtype=np.float64), round(first), end, int((steps > 0).sum())
    )


def weight_decay_rule(
    answers: Sequence[advisor_service_pb2.RecommendLRResponse],
) -> policy_pb2.WeightDecayRule.ValueType:
    """Return what multipliers do to weight decay under the policy of the last answer."""
    independent = policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT
    is_independent = bool(answers) and answers[-1].weight_decay == independent
    return independent if is_independent else policy_pb2.WEIGHT_DECAY_RULE_COUPLED


def _word_without_measurement(outcome: policy_pb2.Outcome.ValueType, prior: float) -> str:
    if prior > 0:
        return "prior"
    return outcome_word(outcome) if outcome == policy_pb2.OUTCOME_UNMATCHED else "no prior"


def _base_factors(events: Sequence[run_service_pb2.RunEvent], groups: int) -> list[float]:
    """Return each group's scheduled learning rate over the largest one, 1 if they are unknown."""
    for event in reversed(events):
        scheduled = event.measurement.learning_rates
        if len(scheduled) == groups and any(scheduled):
            return [significant(one / max(scheduled), 4) for one in scheduled]
    return [1.0] * groups


def _unadvised(outcomes: Sequence[policy_pb2.Outcome.ValueType]) -> list[str]:
    """Return a note about parameters without a counterpart in the profile."""
    unmatched = Counter(outcomes)[policy_pb2.OUTCOME_UNMATCHED]
    if not unmatched:
        return []
    has = "has" if unmatched == 1 else "have"
    parameters = count_of(len(outcomes), "parameter")
    return [f"{unmatched} of {parameters} {has} no counterpart in the profile"]


def _without_prior(
    priors: Sequence[float], outcomes: Sequence[policy_pb2.Outcome.ValueType]
) -> list[str]:
    """Return a note about parameters with a counterpart and without a prior."""
    unmatched = policy_pb2.OUTCOME_UNMATCHED
    without = sum(
        prior == 0 and outcome != unmatched for prior, outcome in zip(priors, outcomes, strict=True)
    )
    if not without:
        return []
    has, its = ("has", "its") if without == 1 else ("have", "their")
    parameters = count_of(len(priors), "parameter")
    return [f"{without} of {parameters} {has} no prior: {its} multiplier is 1"]


def _export(
    opening: advisor_service_pb2.RunOpening,
    multipliers: Sequence[float],
    outcomes: Sequence[str],
    origin: Sequence[str],
    notes: Sequence[str],
) -> Export:
    groups = opening.layout.groups
    roles = [group.role for group in layout_from_proto(opening.layout).groups]
    names = trainer_names([group.name for group in groups])
    rows = tuple(
        ExportRow(
            name=name,
            role=role,
            multiplier=multiplier,
            is_vector=_is_vector(group),
            optimizer=group.optimizer or opening.optimizer,
            outcome=outcome,
        )
        for name, role, multiplier, group, outcome in zip(
            names, roles, multipliers, groups, outcomes, strict=True
        )
    )
    return Export(rows, tuple(origin), tuple(notes), opening.base_learning_rate or None)


def _is_vector(group: layout_pb2.Group) -> bool:
    if group.kind != layout_pb2.GROUP_KIND_UNSPECIFIED:
        return group.kind == layout_pb2.GROUP_KIND_VECTOR
    return len(group.shape) == 1 or group.name.rsplit(".", 1)[-1] == "bias"
