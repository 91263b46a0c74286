"""``attach(initialize=True)`` refuses what is not initial, or cannot be asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from advisor.local.in_process import InProcessSession
from benchmarks.digits import draw_digits
from fslr import AttachError, InvalidRequestError, RunInfo, ServiceError, UnavailableError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import policy_pb2
from fslr.testing import FakeAdvisor
from fslr.torch import ModelGroups
from fslr.training.events import Listeners
from fslr.training.recipe_in_force import RecipeInForce
from tests.recipe_advisor import RecipeAdvisor, RecipeSession
from tests.unit.pytorch.initializing import (
    MUP,
    advisor_of,
    attached,
    job,
    loaded,
    messages,
    rms,
    train,
    weight,
)


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    train(model, optimizer, 1)


def trained_matrices(model: nn.Module, _: torch.optim.Optimizer) -> None:
    for name in ("embed", "hidden", "head"):
        with torch.no_grad():
            weight(model, name).mul_(torch.linspace(0.3, 3, 64))


def untouched(*_: object) -> None:
    pass


class OldSession:
    """A session of an advisor that knows no recipes: it has no start()."""

    def recommend(self, _: pb.Measurement) -> pb.RecommendLRResponse:
        raise AssertionError("nothing is measured before the weights are scaled")

    def close(self) -> None:
        pass


class OldAdvisor(FakeAdvisor):
    def open_run(self, _: pb.RunOpening) -> Any:
        return OldSession()


NOTHING = "nothing was changed; attach before a checkpoint is loaded, or pass initialize=False"


@pytest.mark.parametrize(
    ("prepare", "options", "message"),
    [
        (stepped, {}, f"but AdamW has made steps already; {NOTHING}"),
        (loaded, {}, f"trained: the entries of norm.weight lie between 0.9.* and 1.*; {NOTHING}"),
        (trained_matrices, {}, "trained: the rows or columns of 3 of 3 matrices differ in size"),
        (untouched, {"first_step": 10}, f"but first_step is 10; {NOTHING}"),
        (untouched, {"observe_only": True}, "but observe_only=True changes nothing; leave one"),
        (untouched, {"advisor": advisor_of("")}, 'follows none; pass one, such as recipe="mup'),
        (
            untouched,
            {"recipe": "mup-sgd"},
            "mup-sgd has no rule .* or leave out initialize=True",
        ),
        (
            untouched,
            {"advisor": advisor_of(MUP, stepped=True)},
            "profile does not know those of hidden.weight, head.weight; nothing was changed; rec",
        ),
        (untouched, {"advisor": FakeAdvisor()}, 'follows none; pass one, such as recipe="mup'),
        (untouched, {"advisor": OldAdvisor()}, "an? OldAdvisor knows no recipes: its sessions"),
    ],
)
def test_what_cannot_be_initialized_is_refused_and_nothing_changes(
    prepare: Callable[..., None], options: dict[str, Any], message: str
) -> None:
    model, optimizer = job(64)
    prepare(model, optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(AttachError, match=message):
        attached(model, optimizer, **{"advisor": advisor_of(MUP), **options})
    for parameter, value in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=0, atol=0)
    assert not optimizer._optimizer_step_pre_hooks
    assert not model._forward_pre_hooks


def digits_net(width: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(width)
    sizes = ((64, width), (width, width), (width, 10))
    first, second, last = (nn.Linear(*size) for size in sizes)
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def test_a_trained_model_without_norms_is_known_by_the_sizes_of_its_rows() -> None:
    model, optimizer = digits_net(64)
    advisor = RecipeAdvisor(ModelGroups(*digits_net(16)).layout(), MUP)
    before = rms(model)
    attached(model, optimizer, advisor)[0].close()
    assert rms(model) != before

    draw, generator = draw_digits(32), torch.Generator().manual_seed(0)
    for _ in range(100):
        images, classes = draw(generator)
        optimizer.zero_grad()
        functional.cross_entropy(model(images.flatten(1)), classes).backward()
        optimizer.step()
    before = rms(model)
    fresh = torch.optim.AdamW(model.parameters())
    with pytest.raises(AttachError, match="trained: the rows or columns of 2 of 2 matrices diff"):
        attached(model, fresh, advisor)
    assert rms(model) == before


def test_gradients_may_be_of_a_step_that_sgd_does_not_record() -> None:
    for momentum in (0.0, 0.9):
        model, _ = job(64)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
        advisor = RecipeAdvisor(ModelGroups(*job(16)).layout(), "mup-sgd", optimizer="SGD")
        tokens = torch.randint(0, 20, (8, 5))
        functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        before = rms(model)
        if momentum:  # its state would show a step
            attachment, _ = attached(model, optimizer, advisor)
            attachment.close()
            assert rms(model) != before
            continue
        with pytest.raises(AttachError, match="there are gradients, and SGD without momentum do"):
            attached(model, optimizer, advisor)
        assert rms(model) == before
        optimizer.zero_grad()
        attached(model, optimizer, advisor)[0].close()


def test_a_training_that_goes_on_is_not_asked_to_scale_its_weights() -> None:
    model, optimizer = job(64)
    train(model, optimizer, 20)
    fresh, advisor = torch.optim.AdamW(model.parameters(), lr=0.01), advisor_of(MUP)
    attachment, events = attached(
        model, fresh, advisor, recipe=MUP, initialize=False, first_step=20
    )
    attachment.close()
    assert not any("initial weights" in message for message in messages(events))
    assert not any(group.HasField("initial_rms") for group in advisor.openings[0].layout.groups)


def test_tensors_without_values_are_refused() -> None:
    with torch.device("meta"):
        model, optimizer = job(64)
    with pytest.raises(AttachError, match=r"embed.weight, .* and 2 more have no values yet"):
        attached(model, optimizer, advisor_of(MUP))


class Broken(RecipeAdvisor):
    """An advisor that does not answer openings, or with a factor that is no number."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(ModelGroups(*job(16)).layout(), MUP)
        self.error = error

    def open_run(self, opening: pb.RunOpening) -> BrokenSession:
        return BrokenSession(self._inner.open_run(opening), self.error)


class BrokenSession(RecipeSession):
    def __init__(self, inner: InProcessSession, error: Exception | None) -> None:
        super().__init__(inner)
        self.error = error

    def start(self) -> pb.RecommendLRResponse:
        if self.error is not None:
            raise self.error.with_traceback(None)
        answer = super().start()
        answer.recipe_factors.epsilons[1] = float("nan")
        answer.recipe_factors.initial_rms.pop()
        return answer


MISSING = "measurement: missing; send one, or set end"


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (None, ServiceError, "mup-adam that cannot be applied: epsilons, initial_rms must have"),
        (UnavailableError("no advisor"), UnavailableError, "no advisor"),
        (InvalidRequestError(MISSING), AttachError, "the service is older than recipes: it does"),
    ],
)
def test_nothing_changes_without_a_usable_answer(
    error: Exception | None, raised: type[Exception], message: str
) -> None:
    model, optimizer = job(64)
    before = rms(model)
    with pytest.raises(raised, match=message):
        attached(model, optimizer, Broken(error), recipe="mup-adam")
    assert rms(model) == before
    if raised is AttachError:
        return
    # A start that is not strict goes on without the recipe, and says so.
    attachment, events = attached(
        model, optimizer, Broken(error), recipe="mup-adam", strict=False, observe_only=False
    )
    not_scaled = "training does not follow the recipe mup-adam; initial weights were not scaled: "
    assert any(m.startswith(not_scaled) for m in messages(events))
    assert rms(model) == before
    attachment.close()


class _SilentOnce(RecipeAdvisor):
    """Does not answer the first opening."""

    def open_run(self, opening: pb.RunOpening) -> RecipeSession:
        is_first = not self.openings
        session = super().open_run(opening)
        error = UnavailableError("no advisor")
        return BrokenSession(self._inner.open_run(opening), error) if is_first else session


@pytest.mark.parametrize(
    ("of_policy", "recipe", "told"),
    [
        ("", MUP, f"training does not follow the recipe {MUP}; initial weights were not scaled: "),
        (MUP, "", "training follows only the learning rates of its policy's recipe, if it has one"),
    ],
)
def test_a_recipe_that_could_not_be_asked_for_is_not_followed_in_part(
    of_policy: str, recipe: str, told: str
) -> None:
    base = ModelGroups(*job(16)).layout()
    advisor = _SilentOnce(base, of_policy)
    model, optimizer = job(64)
    attachment, events = attached(model, optimizer, advisor, recipe=recipe, strict=False)
    assert any(m.startswith(told) for m in messages(events))
    train(model, optimizer)
    assert [opening.recipe for opening in advisor.openings] == [recipe, ""]
    assert all(group.recipe is None for group in attachment.by_name().values())
    attachment.close()


def test_the_policys_bounds_hold_from_the_first_step_on() -> None:
    policy = policy_pb2.Policy(recipe=MUP, min_multiplier=0.5, max_multiplier=2.0)
    model, optimizer = job(64)
    attachment, _ = attached(
        model, optimizer, advisor_of(""), run=RunInfo(policy=policy), initialize=False
    )
    advice = attachment.by_name()
    assert min(group.multiplier for group in advice.values()) == 0.5
    factors = advice["hidden.weight"].recipe
    assert factors is not None
    assert factors.learning_rate == 0.25
    attachment.close()


class TwoRanks:
    """One of two ranks that are threads; the other one's weights differ a little."""

    def __init__(self, rank: int, box: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self._box, self._barrier = rank, box, barrier

    @property
    def speaks(self) -> bool:
        return self.rank == 0

    def _spoken(self, value: Any) -> Any:
        if self.speaks:
            self._box[0] = value
        self._barrier.wait()
        spoken = self._box[0]
        self._barrier.wait()
        return spoken

    def from_speaker(self, values: Sequence[float]) -> list[float]:
        return list(self._spoken(list(values)))

    def text_from_speaker(self, text: str) -> str:
        return str(self._spoken(text))


@pytest.mark.parametrize(
    "refusal", [None, UnavailableError("no advisor"), AttachError("no"), ValueError("a fault")]
)
def test_all_ranks_scale_or_fail_alike_though_one_asks(refusal: Exception | None) -> None:
    box: list[Any] = [None]
    barrier = threading.Barrier(2, timeout=20)
    layout = ModelGroups(*job(64)).layout()

    def start(rank: int) -> Any:
        opening = pb.RunOpening(
            profile="projects/default/profiles/x",
            layout=layout,
            optimizer="AdamW",
            recipe="mup-adam",
        )
        opening.layout.groups[3].initial_rms *= 1 + 1e-3 * rank
        ranks = TwoRanks(rank, box, barrier)
        in_force = RecipeInForce(opening, ranks=ranks, listeners=Listeners([]), apply=lambda _: [])
        silent = Broken(AssertionError("only the first rank asks"))
        advisor = silent if rank else Broken(refusal) if refusal else advisor_of(MUP)
        try:  # a start that is not strict goes on, on all ranks or on none
            scaling = in_force.ask(advisor, strict=False, initialize=True)
        except (AttachError, ValueError) as error:
            return str(error)
        return None if scaling is None else (scaling.factors, in_force.recipe)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(start, range(2))
    assert first == second
    if refusal is None:
        assert first[0][5] != 1
    else:
        assert first == (None if isinstance(refusal, ServiceError) else str(refusal))
