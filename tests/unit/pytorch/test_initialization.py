"""``attach(initialize=True)`` scales initial weights once."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
from torch import nn

from fslr import AttachError, RunInfo
from fslr.integrations.callbacks import AttachmentHolder
from fslr.torch import Attachment, ModelGroups
from fslr.training.events import Event
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
