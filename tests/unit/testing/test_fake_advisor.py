"""The advisor for users' own tests, used as they use it."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

import fslr
import fslr.torch
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2, policy_pb2
from fslr.testing import FakeAdvisor, FakeRecipe, Script, by_step
from tests.waiting import eventually

NAMES = ["0.weight", "0.bias", "2.weight", "2.bias"]
OPENING = pb.RunOpening(
    profile="projects/default/profiles/char-gpt@prod",
    layout=layout_pb2.Layout(groups=[layout_pb2.Group(name=name) for name in NAMES]),
)


def measurement(step: int = 0) -> pb.Measurement:
    return pb.Measurement(step=step, unit_rates=[1.0, 2.0, 3.0, 4.0])


def train(advisor: fslr.Advisor, steps: int = 1, **options: object) -> fslr.torch.Attachment:
    """Train a small model with an advisor; an answer is in force at the step after its own."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    given: dict[str, object] = {"answers": "wait", **options}
    attachment = fslr.torch.attach(
        model,
        optimizer,
        profile="char-gpt",
        advisor=advisor,
        **given,  # type: ignore[arg-type]
    )
    with attachment:
        for _ in range(steps):
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    return attachment


def test_it_is_an_advisor() -> None:
    advisor: fslr.Advisor = FakeAdvisor()
    session: fslr.RunSession = advisor.open_run(OPENING)
    assert list(session.recommend(measurement()).multipliers) == [1.0] * 4


@pytest.mark.parametrize(
    ("multipliers", "expected"),
    [
        (0.5, [0.5] * 4),
        ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]),
        (np.array([1.0, 2.0, 3.0, 4.0]), [1.0, 2.0, 3.0, 4.0]),
        ({"2.*": 0.25, "*": 2.0}, [2.0, 2.0, 0.25, 0.25]),
        (lambda sent: {"*": 1.0 + sent.step}, [1.0] * 4),
    ],
)
def test_multipliers_are_given_for_all_groups_for_each_or_by_pattern(
    multipliers: list[float], expected: list[float]
) -> None:
    advisor = FakeAdvisor(multipliers)
    assert train(advisor).multipliers == expected
    assert [group.name for group in advisor.openings[0].layout.groups] == NAMES


def test_multipliers_may_change_at_given_steps() -> None:
    advisor = FakeAdvisor(by_step({0: 1.0, 2: {"*.weight": 0.5, "*": 1.0}}), interval_steps=1)
    assert train(advisor, 4).multipliers == [0.5, 1.0, 0.5, 1.0]
    assert [answer.multipliers[0] for answer in advisor.answers] == [1.0, 1.0, 0.5, 0.5]


def test_a_group_without_a_pattern_is_unmatched_and_keeps_its_multiplier() -> None:
    advisor = FakeAdvisor({"*.weight": 0.5}, priors={"0.*": 0.25})
    mapping = advisor.validate_layout(OPENING)
    assert list(mapping.unmatched) == ["0.bias", "2.bias"]
    assert [group.prior for group in mapping.mappings] == [0.25, 0.25, 0.0, 0.0]
    attachment = train(advisor)
    assert attachment.multipliers == [0.5, 0.25, 0.5, 1.0]
    groups = attachment.by_name()
    assert (groups["0.bias"].outcome, groups["0.weight"].outcome) == ("unmatched", "matched")


def test_measurements_are_kept_and_the_next_one_comes_after_the_interval() -> None:
    advisor = FakeAdvisor(interval_steps=3, probes=2)
    train(advisor, 7)
    assert [sent.step for sent in advisor.measurements] == [0, 3, 6]
    assert [sent.probes for sent in advisor.measurements][1:] == [2, 2]
    rates = advisor.unit_rates()
    assert [list(each) for each in rates] == [NAMES] * 3
    assert rates[0]["2.bias"] == advisor.measurements[0].unit_rates[3] > 0
    train(advisor, 1)
    assert len(advisor.unit_rates()) == 4
    other = pb.RunOpening(layout=layout_pb2.Layout(groups=[layout_pb2.Group(name="w")]))
    advisor.open_run(other)
    with pytest.raises(ValueError, match="2 different layouts were advised; read measurements"):
        advisor.unit_rates()


def test_answers_are_like_those_of_a_service() -> None:
    rule = policy_pb2.WEIGHT_DECAY_RULE_INDEPENDENT
    advisor = FakeAdvisor([0.5, 1.0, 2.0, 4.0], weight_decay=rule, warnings=["the loss differs"])
    mapping = advisor.validate_layout(OPENING)
    assert (mapping.profile, mapping.weight_decay) == ("projects/default/profiles/char-gpt@1", rule)
    assert list(mapping.warnings) == ["the loss differs"]
    answer = advisor.open_run(OPENING).recommend(measurement(7))
    assert (answer.step, answer.next_measurement_step) == (7, 1007)
    assert answer.profile == mapping.profile
    assert list(answer.reference_unit_rates) == [0.5, 2.0, 6.0, 16.0]
    assert list(answer.outcomes) == [policy_pb2.OUTCOME_MATCHED] * 4
    versioned = pb.RunOpening(profile="projects/a/profiles/b@3", layout=OPENING.layout)
    assert advisor.validate_layout(versioned).profile == "projects/a/profiles/b@3"


def test_failures_at_the_start_and_later() -> None:
    advisor = FakeAdvisor(interval_steps=1)
    advisor.fail(fslr.ProfileNotFoundError("there is no profile char-gtp"), times=1)
    with pytest.raises(fslr.ProfileNotFoundError, match="there is no profile char-gtp"):
        train(advisor)
    assert train(advisor).unanswered == 0
    events: list[fslr.Event] = []

    def fail_later(event: fslr.Event) -> None:
        events.append(event)
        if isinstance(event, fslr.AdviceAdopted) and event.step == 2:
            advisor.fail(fslr.UnavailableError("no route"))

    attachment = train(advisor, 4, listeners=[fail_later])
    assert attachment.unanswered > 0
    assert [str(e.error) for e in events if isinstance(e, fslr.Failed)] == ["no route"]
    advisor.recover()
    assert advisor.validate_layout(OPENING).profile
    with pytest.raises(ValueError, match="times is 0; it must be at least 1"):
        advisor.fail(fslr.UnavailableError("no route"), times=0)


def test_warnings_reach_the_training() -> None:
    advisor = FakeAdvisor(warnings=["the batch differs"])
    advisor.warn("the recording is doubtful", pb.WARNING_KIND_RECORDING)
    seen: list[fslr.Event] = []
    train(advisor, listeners=[seen.append])
    messages = [event.message for event in seen if isinstance(event, fslr.Warned)]
    assert messages == ["the batch differs", "the recording is doubtful"]
    assert not advisor.open_run(OPENING).recommend(measurement()).warnings


def test_a_paused_advisor_answers_once_the_pause_ends() -> None:
    advisor = FakeAdvisor(0.5)
    session = advisor.open_run(OPENING)
    answered = threading.Event()

    def ask() -> None:
        session.recommend(measurement())
        answered.set()

    with advisor.paused():
        thread = threading.Thread(target=ask)
        thread.start()
        eventually(lambda: advisor.measurements)
        assert not advisor.answers
    assert answered.wait(10)
    thread.join()


def test_a_training_goes_on_while_the_advisor_is_paused() -> None:
    advisor = FakeAdvisor(by_step({0: 1.0, 1: 0.5}), interval_steps=1)
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> list[float]:
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        return attachment.multipliers

    with fslr.torch.attach(
        model, optimizer, profile="x", advisor=advisor, max_overhead=None
    ) as attachment:
        step()
        with advisor.paused():
            for _ in range(2):
                step()
            assert step() == [1.0, 1.0]
        eventually(lambda: len(advisor.answers) > 1)
        eventually(lambda: step() == [0.5, 0.5])


def test_an_answer_that_comes_too_late_is_an_error() -> None:
    session = FakeAdvisor(delay_s=60, deadline_s=0.01).open_run(OPENING)
    with pytest.raises(fslr.DeadlineExceededError, match=r"did not answer within 0\.01 s"):
        session.recommend(measurement())
    advisor = FakeAdvisor(delay_s=0.01)
    assert advisor.open_run(OPENING).recommend(measurement()).step == 0


def test_closing_a_session_ends_a_call_under_way() -> None:
    advisor = FakeAdvisor(delay_s=60, deadline_s=60)
    session = advisor.open_run(OPENING)
    timer = threading.Timer(0.02, session.close)
    timer.start()
    with pytest.raises(fslr.UnavailableError, match="the run's session is closed"):
        session.recommend(measurement())
    timer.join()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"multipliers": 0.0}, r"a multiplier is 0\.0; it must be finite and above 0"),
        ({"multipliers": {"*": float("nan")}}, "a multiplier is nan; it must be finite and above"),
        ({"priors": -1.0}, r"a prior is -1\.0; it must be finite and at least 0"),
        ({"interval_steps": 0}, "interval_steps is 0; it must be at least 1"),
        ({"delay_s": -1.0}, r"delay_s is -1\.0; it must be a number of seconds"),
    ],
)
def test_values_have_ranges(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FakeAdvisor(**options)  # type: ignore[arg-type]


def test_a_script_needs_multipliers_for_the_first_step() -> None:
    with pytest.raises(ValueError, match=r"the steps are \[5\]; say which multipliers hold from"):
        by_step({5: 1.0})


@pytest.mark.parametrize(
    ("multipliers", "message"),
    [
        ({"heads.*": 0.5}, r"the pattern 'heads\.\*' of the multipliers matches none of the 4"),
        ([1.0, 2.0], "there are 2 multipliers and 4 groups; give one for each group"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_multipliers_that_do_not_fit_the_model_are_an_error_at_the_start(
    multipliers: dict[str, float], message: str, strict: bool
) -> None:
    with pytest.raises(ValueError, match=message):
        train(FakeAdvisor(multipliers), strict=strict)


@pytest.mark.parametrize("value", [0.0, float("inf")])
def test_a_script_that_returns_an_invalid_multiplier_is_an_error(value: float) -> None:
    script: Script = lambda _: value  # noqa: E731
    with pytest.raises(ValueError, match=f"a multiplier is {value}; it must be finite and above"):
        FakeAdvisor(script).open_run(OPENING).recommend(measurement())


def test_a_measurement_of_other_groups_is_refused() -> None:
    with pytest.raises(fslr.InvalidRequestError, match="has 1 values; send one for each of the 4"):
        FakeAdvisor().open_run(OPENING).recommend(pb.Measurement(unit_rates=[1.0]))


RECIPE = FakeRecipe(
    {"2.*": 0.25},
    weight_decay={"2.*": 4.0},
    epsilon={"2.*": 2.0},
    initial_scale={"0.weight": 0.5},
    conditions=["residual blocks are pre-norm"],
)


def attached_and_trained(
    advisor: FakeAdvisor, **options: object
) -> tuple[dict[str, torch.Tensor], fslr.torch.Attachment]:
    """Return the weights of a small model once attached, and the attachment after a step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    attachment = fslr.torch.attach(
        *(model, optimizer),
        profile="char-gpt",
        advisor=advisor,
        **{"answers": "wait", **options},  # type: ignore[arg-type]
    )
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    with attachment:
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
    return weights, attachment


@pytest.mark.parametrize("is_named", [True, False])
def test_a_training_follows_a_recipe_that_it_or_the_policy_names(is_named: bool) -> None:
    plain, _ = attached_and_trained(FakeAdvisor())
    advisor = FakeAdvisor(
        recipes={"mup-adam": RECIPE}, policy_recipe="" if is_named else "mup-adam"
    )
    options = {"recipe": "mup-adam"} if is_named else {}
    weights, attachment = attached_and_trained(advisor, initialize=True, **options)
    for name, before in plain.items():
        factor = 0.5 if name == "0.weight" else 1.0
        torch.testing.assert_close(weights[name], factor * before, rtol=1e-5, atol=0)
    assert attachment.multipliers == [1.0, 1.0, 0.25, 0.25]
    head, body = attachment.by_name()["2.weight"], attachment.by_name()["0.bias"]
    assert head.recipe is not None
    assert (head.recipe.learning_rate, head.recipe.weight_decay) == (0.25, 4.0)
    assert head.recipe.epsilon == 2.0
    assert body.recipe is None  # no factor mentions it
    (opening,) = advisor.openings  # the question for the recipe is not a run
    assert opening.recipe == options.get("recipe", "")
    (answer,) = advisor.answers
    assert (answer.recipe, list(answer.priors)) == ("mup-adam", [1.0, 0.0, 0.25, 0.25])


def test_given_multipliers_correct_a_recipe_once_something_is_measured() -> None:
    advisor = FakeAdvisor(0.5, recipes={"mup-adam": RECIPE})
    _, attachment = attached_and_trained(advisor, recipe="mup-adam")
    assert attachment.multipliers == [0.5] * 4
    assert attachment.by_name()["2.weight"].prior == 0.25


def test_an_answer_before_the_first_measurement_is_like_that_of_a_service() -> None:
    opening = pb.RunOpening()
    opening.CopyFrom(OPENING)
    opening.recipe = "projects/default/recipes/ours"
    opening.layout.groups[0].initial_rms = 0.5
    advisor = FakeAdvisor(recipes={opening.recipe: RECIPE})
    session = advisor.open_run(opening)
    answer = session.start()
    assert answer.recipe == "projects/default/recipes/ours@1"
    assert list(answer.multipliers) == [1.0, 1.0, 0.25, 0.25]
    assert list(answer.recipe_factors.initial_rms) == [0.25, -1.0, -1.0, -1.0]
    assert list(answer.recipe_factors.has_rule) == [True, False, True, True]
    assert list(answer.recipe_factors.conditions) == ["residual blocks are pre-norm"]
    assert advisor.openings == []
    session.recommend(measurement())
    assert advisor.openings == [opening]


def test_a_recipe_that_the_advisor_does_not_have_is_an_error_at_the_start() -> None:
    advisor = FakeAdvisor(recipes={"mup-adam": RECIPE})
    match = "no recipe mup-sgd: the recipes of this FakeAdvisor are mup-adam; pass recipes="
    with pytest.raises(fslr.RecipeNotFoundError, match=match):
        train(advisor, recipe="mup-sgd")


def test_factors_of_a_recipe_are_checked() -> None:
    with pytest.raises(ValueError, match=r"a factor of epsilon is 0\.0; it must be finite and abo"):
        FakeRecipe(epsilon=0.0)
    advisor = FakeAdvisor(recipes={"ours": FakeRecipe({"head.*": 0.5})})
    with pytest.raises(
        ValueError, match=r"'head\.\*' of the factors of learning_rate matches none"
    ):
        train(advisor, recipe="ours")
