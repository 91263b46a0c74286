"""``attach(initialize=True)`` scales initial weights once, and refuses what is not initial."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from advisor.local.in_process import InProcessSession
from fslr import AttachError, InvalidRequestError, RunInfo, ServiceError, UnavailableError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.integrations.callbacks import AttachmentHolder
from fslr.testing import FakeAdvisor
from fslr.torch import Attachment, ModelGroups, attach
from fslr.training.events import Event, Listeners, Warned
from fslr.training.recipe_in_force import RecipeInForce
from tests.recipe_advisor import RecipeAdvisor, RecipeSession

OPTIONS: dict[str, Any] = {"lr": 0.01, "eps": 1e-6, "weight_decay": 0.1}


class Tied(nn.Module):
    """A small model whose readout can be its embedding."""

    def __init__(self, width: int, *, tied: bool = False, zero_head: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, width)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.head = nn.Linear(width, 20, bias=False)
        if zero_head:
            nn.init.zeros_(self.head.weight)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        out: Tensor = self.head(self.norm(x + torch.tanh(self.hidden(x))))
        return out


def job(width: int, **options: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(width)
    model = Tied(width, **options)
    return model, torch.optim.AdamW(model.parameters(), **OPTIONS)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 1) -> None:
    for step in range(steps):
        tokens = torch.randint(0, 20, (8, 5), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()


def advisor_of(recipe: str, *, stepped: bool = False, **options: Any) -> RecipeAdvisor:
    """Return an advisor of runs on a base, whose recording may have begun late."""
    model, optimizer = job(16, **options)
    if stepped:
        train(model, optimizer)
    return RecipeAdvisor(ModelGroups(model, optimizer).layout(), recipe)


def attached(
    model: nn.Module, optimizer: Any, advisor: Any, **options: Any
) -> tuple[Attachment, list[Event]]:
    events: list[Event] = []
    attachment = attach(
        *(model, optimizer),
        **{"profile": "x", "advisor": advisor, "initialize": True, **options},
        listeners=[events.append],
    )
    return attachment, events


def weight(model: nn.Module, module: str) -> Tensor:
    found: Tensor = model.get_submodule(module).get_parameter("weight")
    return found


def rms(model: nn.Module) -> dict[str, float]:
    return {name: p.detach().square().mean().sqrt().item() for name, p in model.named_parameters()}


def messages(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Warned)]


MUP = "mup-adam"


def test_weights_are_scaled_to_the_base_times_the_recipe_and_one_line_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    base, _ = job(16)
    model, optimizer = job(64)
    nn.init.normal_(weight(model, "hidden"), std=0.5)  # whatever its code starts with
    before = rms(model)
    advisor = advisor_of(MUP)
    with caplog.at_level(logging.INFO, "fslr"):
        attachment, _ = attached(model, optimizer, advisor, recipe="mup-adam")
    wanted = rms(base)
    wanted["hidden.weight"] /= 2
    wanted["head.weight"] /= 4
    assert rms(model) == pytest.approx(wanted, rel=1e-5)
    opening = advisor.openings[-1]
    assert opening.recipe == "mup-adam"
    assert opening.initial_weights_follow_recipe
    sent = {group.name: group.initial_rms for group in opening.layout.groups}
    assert sent == pytest.approx(wanted, rel=1e-5)  # the advisor sees what the run starts with
    assert attachment.multipliers == pytest.approx([1, 1, 1, 1 / 4, 1, 1 / 4])
    (line,) = [r.getMessage() for r in caplog.records if r.getMessage().startswith("recipe ")]
    assert line.startswith(
        "recipe mup-adam for 6 groups: it multiplies learning rates of 2 by 0.25, weight decay of "
        "2 by 4, epsilon of 1 by 4, initial weights of 4 by "
    )
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    assert not any("do not scale alike" in message for message in caplog.messages)
    train(model, optimizer)
    (start,) = [m for m in caplog.messages if m.startswith("advice from ")]
    assert start.startswith(
        "advice from in-process@1 under the profile's rules and the recipe mup-adam; "
    )
    head = attachment.by_name()["head.weight"]
    assert head.recipe is not None
    assert (head.recipe.learning_rate, head.recipe.weight_decay, head.measured) == (0.25, 4, 0.5)
    assert head.initial_factor == pytest.approx(wanted["head.weight"] / before["head.weight"])
    lines = attachment.explain().splitlines()
    assert lines[0].endswith("multipliers 0.25 to 1>, recipe mup-adam")
    assert lines[1].split() == [
        *("groups", "multiplier", "recipe", "measured", "decay", "epsilon", "initial")
    ]
    assert lines[-1].split()[:7] == ["head.weight", "(1)", "0.25", "0.25", "0.5", "4", "4"]
    attachment.close()


def test_tied_tensors_are_scaled_once() -> None:
    model, optimizer = job(64, tied=True)
    with torch.no_grad():
        weight(model, "embed").mul_(3)
    attachment, _ = attached(model, optimizer, advisor_of(MUP, tied=True))
    base, _ = job(16, tied=True)
    assert rms(model)["embed.weight"] == pytest.approx(rms(base)["embed.weight"], rel=1e-5)
    assert id(weight(model, "head")) == id(weight(model, "embed"))
    attachment.close()


def test_tensors_that_start_from_zero_on_one_side_are_left_and_named() -> None:
    model, optimizer = job(64, zero_head=True)
    attachment, events = attached(model, optimizer, advisor_of(MUP))
    assert rms(model)["head.weight"] == 0
    assert (
        "initial weights that are zero cannot be scaled, but in the base they are not zero: "
        "head.weight; start both in the same way"
    ) in messages(events)
    attachment.close()
    model, optimizer = job(64)
    before = rms(model)["head.weight"]
    attachment, events = attached(model, optimizer, advisor_of(MUP, zero_head=True))
    assert rms(model)["head.weight"] == before
    assert (
        "initial weights that are zero in the base are not zero here, and are left as they are: "
        "head.weight; start both in the same way"
    ) in messages(events)
    attachment.close()


def test_a_resumed_run_keeps_the_recipe_and_its_weights() -> None:
    def start(**options: Any) -> tuple[nn.Module, torch.optim.Optimizer, Attachment, list[Event]]:
        model, optimizer = job(64)
        return model, optimizer, *attached(model, optimizer, advisor_of(MUP), **options)

    model, optimizer, attachment, _ = start()
    train(model, optimizer, 2)
    parts = (model, optimizer, attachment)
    states = copy.deepcopy([part.state_dict() for part in parts])
    assert states[2]["recipe"]["initialized"]
    train(model, optimizer, 2)
    expected = [p.detach().clone() for p in model.parameters()]
    attachment.close()
    for options in ({}, {"initialize": False}):  # whatever the script says
        model, optimizer, attachment, _ = start(**options)
        restored: tuple[Any, ...] = model, optimizer, attachment
        for part, state in zip(restored, states, strict=True):
            part.load_state_dict(copy.deepcopy(state))
        train(model, optimizer, 2)
        for parameter, value in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.detach(), value, rtol=0, atol=0)
        attachment.close()


def test_a_checkpoint_of_a_run_without_a_recipe_goes_on_without_one() -> None:
    model, optimizer = job(64)
    attachment, _ = attached(model, optimizer, advisor_of(""), initialize=False)
    state = attachment.state_dict()
    attachment.close()
    for old in (state, {key: part for key, part in state.items() if key != "recipe"}):
        model, optimizer = job(64)
        attachment, events = attached(model, optimizer, advisor_of(MUP))
        attachment.load_state_dict(old)
        recipe, initial = messages(events)[-2:]
        assert recipe == (
            "the run follows no recipe, as its checkpoint says, and not the recipe mup-adam"
        )
        assert initial == (
            "initialize=True has no effect: the checkpoint is of a run whose initial weights were "
            "not scaled"
        )
        assert not attachment.state_dict()["recipe"]["initialized"]
        attachment.close()


def test_a_recipe_of_the_policy_is_followed_and_asks_for_other_weights() -> None:
    model, optimizer = job(64)
    with torch.no_grad():
        weight(model, "hidden").mul_(4)
    before = rms(model)
    advisor = advisor_of(MUP)
    attachment, events = attached(model, optimizer, advisor, initialize=False)
    assert rms(model) == before
    assert not advisor.openings[-1].initial_weights_follow_recipe
    assert attachment.multipliers[3] == 0.25
    (needed,) = [m for m in messages(events) if "other initial weights" in m]
    # Matrices only: hidden.bias has half the size of the base's, but that may be chance.
    assert needed.startswith(
        "the recipe mup-adam wants other initial weights: hidden.weight, head.weight by a factor of"
    )
    assert needed.endswith("pass initialize=True to scale them before the first step")
    assert attachment.state_dict()["recipe"]["name"] == "mup-adam"
    attachment.close()


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    train(model, optimizer, 1)


def loaded(model: nn.Module, _: torch.optim.Optimizer) -> None:
    trained, optimizer = job(64)
    train(trained, optimizer, 3)
    model.load_state_dict(trained.state_dict())


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
        (untouched, {"recipe": "mup-sgd"}, "the recipe mup-sgd has no rule for any group, for"),
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


def test_tensors_without_values_are_refused() -> None:
    with torch.device("meta"):
        model, optimizer = job(64)
    with pytest.raises(AttachError, match=r"embed.weight, .* and 2 more have no values yet"):
        attached(model, optimizer, advisor_of(MUP))


def test_frozen_tensors_may_be_trained() -> None:
    model, optimizer = job(64)
    loaded(model, optimizer)
    for parameter in (
        *model.get_submodule("norm").parameters(),
        weight(model, "embed"),
    ):
        parameter.requires_grad_(False)
    before = rms(model)
    attachment, _ = attached(model, optimizer, advisor_of(MUP))
    after = rms(model)
    assert after["norm.weight"] == before["norm.weight"]
    assert after["hidden.weight"] != before["hidden.weight"]
    attachment.close()


@pytest.mark.parametrize("recipe", ["", "square-root-batch"])
def test_what_layouts_do_not_show_comes_with_the_run(recipe: str) -> None:
    """The base has batches of 4."""
    for info in (RunInfo(batch_size=64), RunInfo(ratios={"batch": 16.0})):
        model, optimizer = job(64)
        advisor = advisor_of("" if recipe else "square-root-batch")
        attachment, _ = attached(
            model, optimizer, advisor, run=info, recipe=recipe, initialize=bool(recipe)
        )
        assert attachment.multipliers == [4.0] * 6
        settings = attachment.by_name()["head.weight"].recipe
        assert settings is not None
        assert settings.epsilon == 0.25
        assert settings.one_minus_beta2 == 16
        attachment.close()
    model, optimizer = job(64)
    for ratios, message in (
        ({"heads": 2.0}, "there is no ratio 'heads'; known are head_size, batch, tokens, sequence"),
        ({"batch": 0.0}, "the ratio batch is 0.0; it must be the run's value over the base's"),
    ):
        with pytest.raises(AttachError, match=message):
            attached(model, optimizer, advisor_of(MUP), run=RunInfo(ratios=ratios))


def test_a_trainer_that_resumes_does_not_initialize() -> None:
    for first_step in (0, 5):
        model, optimizer = job(64)
        before = rms(model)
        callback = AttachmentHolder(profile="x", advisor=advisor_of(MUP), initialize=True)
        callback._begin(model, optimizer, first_step=first_step)
        assert (rms(model) == before) == bool(first_step)
        callback.close()


def test_patterns_say_what_writes_into_the_residual_stream() -> None:
    model, optimizer = job(64)
    layout = ModelGroups(model, optimizer).layout()
    assert not any(group.HasField("residual_output") for group in layout.groups)
    advisor = advisor_of(MUP)
    attachment, _ = attached(model, optimizer, advisor, residual_outputs=["hidden.*"])
    sent = {group.name: group.residual_output for group in advisor.openings[-1].layout.groups}
    assert {name for name, is_output in sent.items() if is_output} == {
        "hidden.weight",
        "hidden.bias",
    }
    assert all(group.HasField("residual_output") for group in advisor.openings[-1].layout.groups)
    attachment.close()
    model, optimizer = job(64)
    before = rms(model)
    message = r"the pattern 'proj.\*' in residual_outputs matches none of the 6 groups; names look"
    with pytest.raises(AttachError, match=message):
        attached(model, optimizer, advisor, residual_outputs=["proj.*"])
    assert rms(model) == before


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
    assert any(m.startswith("training starts without its recipe: ") for m in messages(events))
    assert rms(model) == before
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


@pytest.mark.parametrize("is_refused", [False, True])
def test_all_ranks_scale_alike_though_one_asks(is_refused: bool) -> None:
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
        refusal = UnavailableError("no advisor") if is_refused else None
        silent = Broken(AssertionError("only the first rank asks"))
        advisor = silent if rank else Broken(refusal) if is_refused else advisor_of(MUP)
        try:
            scaling = in_force.ask(advisor, strict=True, initialize=True)
        except ServiceError as error:
            return str(error)
        assert scaling is not None
        return scaling.factors, in_force.recipe

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(start, range(2))
    assert first == second
    assert first == "no advisor" if is_refused else first[0][5] != 1
