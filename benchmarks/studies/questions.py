"""The questions of the ablations, with their choices and cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from advisor.policy import Alignment, DepthRule, Policy
from advisor.registry.merging import merge
from advisor.wire import policy_to_proto
from advisor.wire.profiles import content_from_proto, content_to_proto
from benchmarks.studies.reference import Reference, octaves_around, recorded, with_rules
from benchmarks.transfer.bench import Bench
from benchmarks.transfer.cases import Case, chosen_cases
from benchmarks.transfer.sweeps import ADVISED, Method, Profiles
from benchmarks.transfer.training import Advice, Recording
from fslr.torch import MeasuringOptions

_MANY_STEPS = 1_000  # enough to measure more than once at an interval of 400 steps
_LATE_STEPS = 400  # most of them come after the fast changes at the start of a training

ProfilesOf = Callable[[Bench, Reference], Profiles]


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer to a question.

    Attributes:
        name: The value of the setting, for tables.
        method: How to record and to advise.
        profiles: Returns the profiles to use; None for those of the same seed and learning rate.
    """

    name: str
    method: Method = ADVISED
    profiles: ProfilesOf | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its choices, one of which is the default.

    Attributes:
        name: Its name on the command line.
        text: The question.
        cases: The cases on which it is asked.
        choices: The choices.
        default: The name of the choice that is the default of the policy or the client.
        field: The field of the policy or the client that sets it, as Markdown; empty if none does.
        base_steps: Steps of the base's trainings; None for the number of the big model's.
    """

    name: str
    text: str
    cases: tuple[Case, ...]
    choices: tuple[Choice, ...]
    default: str
    field: str = ""
    base_steps: int | None = None


def _with_rules(name: str, **rules: object) -> Choice:
    return Choice(name, with_rules(**rules))


def _every(steps: int) -> Choice:
    return _with_rules(f"every {steps} steps", min_interval_steps=steps, max_interval_steps=steps)


def _averaged(name: str, window: float) -> Choice:
    return _with_rules(name, averaging_window=window)


def _probes(count: int) -> Choice:
    advice = Advice(options=MeasuringOptions(probes=count))
    return Choice(f"{count} probe{'s' if count > 1 else ''}", replace(ADVISED, advice=advice))


def _estimator(name: str) -> Choice:
    options = MeasuringOptions(estimator=name)
    # With one probe, other estimators are so noisy that the policy would hold all multipliers.
    policy = replace(Policy(), max_relative_error=1e6, weigh_by_confidence=False)
    advice = Advice(policy_to_proto(policy), options)
    return Choice(name, replace(ADVISED, recording=Recording(options=options), advice=advice))


def _different_seed(_bench: Bench, reference: Reference) -> Profiles:
    """Return the profile of the next seed for each seed."""
    seeds, found = reference.case.seeds, reference.base.profiles
    following = dict(zip(seeds, [*seeds[1:], seeds[0]], strict=True))
    return {
        (octave, seed): found[octave, following[seed]]
        for octave, seed in found
        if (octave, following[seed]) in found
    }


def _merged_seeds(bench: Bench, reference: Reference) -> Profiles:
    """Return one profile, merged from those of all seeds, for each seed."""
    case, found = reference.case, reference.base.profiles
    result: dict[tuple[float, int], str] = {}
    for octave in octaves_around(reference):
        names = [found[octave, seed] for seed in case.seeds if (octave, seed) in found]
        if len(names) == len(case.seeds):
            contents = [content_from_proto(bench.content(name)) for name in names]
            merged = content_to_proto(merge(contents)).SerializeToString()
            registered = bench.register(f"merged-of-octave-{octave + 100}", merged)
            result |= {(octave, seed): registered for seed in case.seeds}
    return result


def _recorded_at(step: int) -> ProfilesOf:
    """Return a function that uses profiles recorded ``step`` octaves above the learning rate."""

    def profiles(bench: Bench, reference: Reference) -> Profiles:
        found = dict(reference.base.profiles)
        wanted = [octave + step for octave in octaves_around(reference)]
        missing = [octave for octave in wanted if octave not in reference.base.losses]
        if missing:
            found |= recorded(bench, reference, Recording(), missing)
        return {(octave - step, seed): name for (octave, seed), name in found.items()}

    return profiles


def _recorded_on_prose(bench: Bench, reference: Reference) -> Profiles:
    """Record the base on prose about Python; the big model is trained on source code."""
    base = replace(reference.case.base, documents="topics")
    return recorded(bench, reference, Recording(), octaves_around(reference), base)


def questions(*, is_quick: bool = False) -> Sequence[Question]:
    """Return the questions.

    Args:
        is_quick: Whether to use one seed and fewer steps.
    """

    def of(axis: str, model: str, optimizer: str = "Adam") -> Case:
        (case,) = chosen_cases(axis, model, optimizer)
        return replace(case, seeds=(0,), steps=100) if is_quick else case

    def lasting(case: Case, steps: int) -> Case:
        return case if is_quick else replace(case, steps=steps)

    wide = replace(of("width", "char_gpt_pre", "Muon"), optimizer="Adam")
    wide_mlp = of("width", "res_mlp")
    deep, deep_mlp = of("depth", "char_gpt_pre"), of("depth", "res_mlp")
    long = lasting(wide, _MANY_STEPS)
    long_post = lasting(of("width", "char_gpt_post"), _MANY_STEPS)
    late = (lasting(deep, _LATE_STEPS), lasting(deep_mlp, _LATE_STEPS))
    longer = replace(wide, steps=2 * wide.steps)
    other_text = replace(
        wide,
        base=replace(wide.base, documents="sources"),
        big=replace(wide.big, documents="sources"),
    )
    found = [
        Question(
            "interval",
            "How often to measure?",
            (long, long_post),
            (
                Choice("25 to 100 steps, adaptive"),
                _every(25),
                _every(100),
                _every(400),
            ),
            "25 to 100 steps, adaptive",
            "`min_interval_steps`, `max_interval_steps`",
        ),
        Question(
            "averaging",
            "Over which part of the training so far to average?",
            (long, long_post, *late),
            (
                _averaged("none", 0.0),
                _averaged("half", 0.5),
                _averaged("all", 1.0),
                _with_rules("first recommendation kept", first_step_only=True),
            ),
            "half",
            "`averaging_window`, `first_step_only`",
        ),
        Question(
            "probes",
            "How many probes per measurement?",
            (wide, wide_mlp),
            tuple(map(_probes, (1, 4, 16))),
            "1 probe",
            "`MeasuringOptions.probes`",
        ),
        Question(
            "estimator",
            "Which estimator, with one probe and any relative error?",
            (wide, wide_mlp),
            tuple(map(_estimator, ("per_example", "kronecker", "full", "iid"))),
            "per_example",
            "`MeasuringOptions.estimator`",
        ),
        Question(
            "depth",
            "Which depth rule?",
            (deep, deep_mlp),
            tuple(_with_rules(rule.name.lower(), depth_rule=rule) for rule in DepthRule),
            "sum",
            "`depth_rule`",
        ),
        Question(
            "recording-learning-rate",
            "What if the profile was recorded at a different learning rate?",
            (wide,),
            (
                Choice("the same learning rate", profiles=_recorded_at(0)),
                Choice("one octave higher", profiles=_recorded_at(1)),
                Choice("one octave lower", profiles=_recorded_at(-1)),
                Choice("two octaves lower", profiles=_recorded_at(-2)),
            ),
            "the same learning rate",
        ),
        Question(
            "alignment",
            "Align by step or by progress, if the big run is twice as long?",
            (longer,),
            (
                _with_rules("step", alignment=Alignment.STEP),
                _with_rules("progress", alignment=Alignment.PROGRESS),
            ),
            "step",
            "`alignment`",
            base_steps=wide.steps,
        ),
        Question(
            "data",
            "What if the profile comes from a model trained on different data?",
            (other_text,),
            (Choice("the same data"), Choice("different data", profiles=_recorded_on_prose)),
            "the same data",
        ),
    ]
    if not is_quick:
        found.append(
            Question(
                "seeds",
                "A profile of one seed or of several?",
                (wide, wide_mlp),
                (
                    Choice("the run's own seed"),
                    Choice("a different seed", profiles=_different_seed),
                    Choice("merged from all seeds", profiles=_merged_seeds),
                ),
                "the run's own seed",
            )
        )
    return found
