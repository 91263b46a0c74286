"""A pilot in four steps: record, register, observe, compare. What is done, and what to do next."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass

from advisor.policy.counts import count_of
from advisor.report.run_figures import RunFigures
from advisor.report.words import short_name
from fslr.resource_names import DEFAULT_PROJECT

MIN_MEASUREMENTS = 3
"""Number of measurements of an observed run that a report needs."""
_EVERY = 10  # steps between the points of a recording
_PROVENANCE = (
    "provenance = fslr.Provenance(  # write what your model is\n"
    '    "char GPT", width=64, depth=2, dataset="tiny shakespeare", batch_size=32\n)'
)
_COMMIT = ',\n    commit="first",  # not in a git repository: name the version of your code\n)'


class PilotStep(enum.Enum):
    """A step of a pilot."""

    RECORD = "record"
    REGISTER = "register"
    OBSERVE = "observe"
    COMPARE = "compare"


class Framework(enum.StrEnum):
    """What the training is written with."""

    TORCH = "torch"
    JAX = "jax"
    TRANSFORMERS = "transformers"
    LIGHTNING = "lightning"


@dataclass(frozen=True, slots=True)
class Pilot:
    """A pilot, as far as the service and the working directory know of it.

    Attributes:
        profile: The profile's name, without a version.
        run: The name of the run that only observes.
        file: The recording's file.
        has_file: Whether the file exists.
        version: Short name of the registered version; empty: none is registered.
        figures: The figures of the observed run; None: it has not started.
    """

    profile: str
    run: str
    file: str
    has_file: bool
    version: str
    figures: RunFigures | None

    @property
    def step(self) -> PilotStep:
        """The first step that is not done; after the last one, the last one."""
        if not self.version:
            return PilotStep.REGISTER if self.has_file else PilotStep.RECORD
        is_usable = not (self.has_applied or self.other_profile)
        is_observed = self.measurements >= MIN_MEASUREMENTS and is_usable
        return PilotStep.COMPARE if is_observed else PilotStep.OBSERVE

    @property
    def measurements(self) -> int:
        """Number of measurements of the observed run."""
        return 0 if self.figures is None else len(self.figures.points)

    @property
    def other_profile(self) -> str:
        """Short name of the profile that the run was measured against, if it is a different one."""
        if self.figures is None or self.figures.newest is None:
            return ""
        name = short_name(self.figures.newest.recommendation.profile)
        return "" if name.partition("@")[0] == self.profile else name

    @property
    def has_applied(self) -> bool:
        """Whether the run applied advice, so that it compares nothing."""
        return self.figures is not None and not self.figures.observes_only

    def status(self, step: PilotStep) -> str:
        """Return what is known about a step, in a few words.

        Args:
            step: The step.
        """
        counted = f"run {self.run}, {count_of(self.measurements, 'measurement')}"
        match step:
            case PilotStep.RECORD:
                return self.file if self.has_file else ""
            case PilotStep.REGISTER:
                return self.version
            case PilotStep.OBSERVE:
                return counted if self.figures is not None else ""
            case PilotStep.COMPARE:
                return ""


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines of Python to paste into a training.

    Attributes:
        before: Lines that go before the training loop.
        after: Lines that go behind it; empty: none.
    """

    before: str
    after: str = ""


def recording_lines(framework: Framework, file: str, *, has_commit: bool = True) -> Lines:
    """Return the lines that record a profile of the small model.

    Args:
        framework: What the training is written with.
        file: The file to save it to.
        has_commit: Whether the revision of the training's code is found by itself, as in a git
            repository; a profile without one cannot be registered.
    """
    quoted = json.dumps(file)
    provenance = _PROVENANCE if has_commit else _PROVENANCE.removesuffix("\n)") + _COMMIT
    how = f"every={_EVERY}, provenance=provenance"
    save = f"fslr.save_profile(recorder.profile(), {quoted})"
    match framework:
        case Framework.TORCH:
            start = f"recorder = fslr.torch.Recorder(model, optimizer, {how})"
            return Lines(f"import fslr.torch\n\n{provenance}\n{start}", save)
        case Framework.JAX:
            start = (
                "recorder = fslr.jax.Recorder(\n"
                f"    apply_fn, params, opt_state, learning_rate=schedule, {how}\n)\n"
                "train_step = recorder.wrap(train_step)"
            )
            return Lines(f"import fslr.jax\n\n{provenance}\n{start}", save)
        case Framework.TRANSFORMERS | Framework.LIGHTNING:
            callback = f"RecorderCallback(\n    save_to={quoted}, {how}\n)"
            return Lines(
                f"{_import(framework, 'RecorderCallback')}\n\n{provenance}\n"
                f"{_added(framework, callback)}"
            )


def observing_lines(
    framework: Framework, profile: str, run: str, *, project: str, address: str
) -> Lines:
    """Return the lines that let the large model's training be observed, unchanged.

    Args:
        framework: What the training is written with.
        profile: The profile.
        run: The run's name.
        project: The project of both.
        address: The service's address, as the training reaches it.
    """
    own = "" if project == DEFAULT_PROJECT else f', project="{project}"'
    named = f'fslr.RunInfo("{run}"{own})' if own else f'"{run}"'
    how = f'profile="{profile}", run={named},\n    advisor="{address}", observe_only=True'
    match framework:
        case Framework.TORCH:
            start = f"attachment = fslr.torch.attach(\n    model, optimizer, {how}\n)"
            return Lines(f"import fslr.torch\n\n{start}", "attachment.close()")
        case Framework.JAX:
            start = (
                "attachment = fslr.jax.attach(\n"
                f"    apply_fn, params, opt_state, learning_rate=schedule,\n    {how}\n)\n"
                "train_step = attachment.wrap(train_step)"
            )
            return Lines(f"import fslr.jax\n\n{start}", "attachment.close()")
        case Framework.TRANSFORMERS | Framework.LIGHTNING:
            callback = f"AdviceCallback(\n    {how}\n)"
            return Lines(f"{_import(framework, 'AdviceCallback')}\n\n{_added(framework, callback)}")


def _import(framework: Framework, name: str) -> str:
    return f"import fslr\nfrom fslr.integrations.{framework.value} import {name}"


def _added(framework: Framework, callback: str) -> str:
    """Return the line that adds a callback to a trainer."""
    add = "add_callback" if framework is Framework.TRANSFORMERS else "callbacks.append"
    return f"trainer.{add}({callback})"
