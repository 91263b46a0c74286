"""Runs that follow recipes before and beside measurements."""

from __future__ import annotations

import math
import re
from typing import Any

import grpc
import pytest
import torch
from torch import nn

import fslr.torch
from advisor.local.in_process import InProcessAdvisor
from fslr import AdvisorClient, InvalidRequestError, LayoutMismatchError, RecipeNotFoundError
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import (
    advisor_service_pb2_grpc,
    layout_pb2,
    policy_pb2,
    recipe_pb2,
    recipe_service_pb2,
)
from tests.building import NAMES, content_message, layout_message
from tests.integration.recipe_building import (
    HIDDEN,
    OTHER,
    RMS,
    SHAPES,
    WIDER,
    WIDTH,
    base_content,
    described,
    opened,
    table,
)
from tests.integration.test_stored_recipes import sent


def test_an_opening_alone_is_answered_and_measurements_follow_on_the_same_stream(
    client: AdvisorClient, project: str
) -> None:
    client.set_recipe("ours", table(), project=project)
    name = f"projects/{project}/recipes/ours"
    client.set_policy("team", policy_pb2.Policy(recipe=name), project=project)
    content = base_content()
    content.ClearField("policy")
    content.policy_name = f"projects/{project}/policies/team"
    client.register_profile("gpt", content, project=project)
    opening = opened(project)
    opening.batch_size = 16  # the base's is 4
    session = client.open_run(opening)
    answer = session.start()
    assert answer == client.recommend_once(opening)
    growth = WIDER / WIDTH
    learning_rate = 1 / growth * math.sqrt(16 / 4)
    assert list(answer.multipliers) == pytest.approx([1.0, *[learning_rate] * 3])
    assert list(answer.priors) == pytest.approx([0.0, *[learning_rate] * 3])
    assert list(answer.outcomes) == [policy_pb2.OUTCOME_PRIOR] * 4
    assert (answer.recipe, answer.next_measurement_step) == (f"{name}@1", 0)
    assert answer.policy == f"projects/{project}/policies/team@1"
    factors = answer.recipe_factors
    assert list(factors.learning_rates) == pytest.approx([1.0, *[learning_rate] * 3])
    assert list(factors.weight_decays) == [1.0, *[growth] * 3]
    assert list(factors.epsilons) == [1.0, *[1 / growth] * 3]
    assert list(factors.one_minus_beta1s) == [1.0] * 4
    assert list(factors.one_minus_beta2s) == [1.0, *[4.0] * 3]
    assert list(factors.initial_scales) == pytest.approx([1.0, *[growth**-0.5] * 3])
    assert list(factors.initial_rms) == pytest.approx([-1.0, *[RMS * growth**-0.5] * 3])
    assert list(factors.has_rule) == [False, True, True, True]
    assert list(factors.conditions) == ["Heads keep their size."]
    missing = [w.message for w in answer.warnings if w.kind == pb.WARNING_KIND_RECIPE]
    assert missing == [
        (
            f"the recipe {name}@1 says nothing of 1 of 4 groups (embed.weight): the recipe has no "
            "row for groups of this kind; these groups have no prior, and what is measured decides"
        )
    ]
    # A later version does not reach a run that is open.
    client.set_recipe("ours", table(-0.5), project=project)
    later = session.recommend(pb.Measurement(step=0, unit_rates=[1.0, 2.0, 3.0, 4.0]))
    session.close()
    assert (later.recipe, list(later.priors)) == (f"{name}@1", list(answer.priors))
    assert not later.HasField("recipe_factors")
    # A measurement moves multipliers, within the correction bound around the recipe's.
    assert list(later.multipliers) != list(answer.multipliers)
    assert max(later.multipliers[1:]) <= learning_rate * 2
    checked = client.validate_layout(opening)
    assert checked.recipe == f"{name}@2"
    by_width, by_batch = 0.5, 2.0
    priors = [mapping.prior for mapping in checked.mappings]
    assert priors == pytest.approx([0.0, *[by_width * by_batch] * 3])


def test_a_noisy_measurement_leaves_multipliers_nearer_to_the_recipe(
    client: AdvisorClient, project: str
) -> None:
    client.register_profile("gpt", base_content(), project=project)

    # Averaging and rounding would hide how far a move goes.
    policy = policy_pb2.Policy(averaging_window=0, multiplier_values_per_octave=0)

    def corrected(error: float) -> list[float]:
        opening = opened(project, "mup-adam")
        opening.policy.CopyFrom(policy)
        session = client.open_run(opening)
        rates = [1.0, *(rate / (1.4 * WIDTH / WIDER) for rate in (2.0, 3.0, 4.0))]
        measured = pb.Measurement(step=0, unit_rates=rates, relative_errors=[error] * 4)
        answer = session.recommend(measured)
        session.close()
        assert list(answer.priors) == [1.0, *[WIDTH / WIDER] * 3]
        pairs = zip(answer.multipliers, answer.priors, strict=True)
        return [multiplier / prior for multiplier, prior in pairs]

    exact, noisy = corrected(0.02), corrected(0.5)
    assert exact == pytest.approx([1.0, *[1.4] * 3], rel=0.01)
    # Wiener's filter for a move of log(1.4) in noise of 0.5
    expected = 1.4 ** (1 / (1 + (0.5 / math.log(1.4)) ** 2))
    assert noisy == pytest.approx([1.0, *[expected] * 3])
    assert 1 < expected < 1.12


def test_an_answer_without_a_measurement_is_the_same_in_process(
    client: AdvisorClient, project: str
) -> None:
    client.register_profile("gpt", base_content(), project=project)
    advisor = InProcessAdvisor(base_content())
    for recipe in ("mup-adam", ""):  # without a recipe: the priors from shapes
        opening = opened(project, recipe)
        opening.training_ratios.head_size = 2.0
        remote, local = client.open_run(opening).start(), advisor.open_run(opening).start()
        assert list(remote.multipliers) == [1.0, *[WIDTH / WIDER] * 3]
        assert remote.recipe == recipe
        local.profile = remote.profile
        assert local == remote
    with pytest.raises(InvalidRequestError, match=r"ours is stored in a service, which cannot be"):
        advisor.open_run(opened(project, f"projects/{project}/recipes/ours"))


def test_an_opening_alone_that_cannot_be_answered_says_why(
    client: AdvisorClient, project: str
) -> None:
    client.register_profile("gpt", base_content(), project=project)

    def start(recipe: str, change: pb.RunOpening | None = None) -> pb.RecommendLRResponse:
        opening = opened(project, recipe)
        opening.MergeFrom(change or pb.RunOpening())
        return client.recommend_once(opening)

    with pytest.raises(RecipeNotFoundError, match=r"no recipe mup-adm; did you mean mup-adam") as e:
        start("mup-adm")
    assert (e.value.reason, e.value.metadata["nearest"].split()[0]) == (
        *("RECIPE_NOT_FOUND", "mup-adam"),
    )
    with pytest.raises(
        RecipeNotFoundError, match="a stored one is named projects/PROJECT/recipes/"
    ):
        start("ours")
    with pytest.raises(InvalidRequestError, match=r"recipe: 'mup-adam@1' names a version, but rec"):
        start("mup-adam@1")
    with pytest.raises(
        InvalidRequestError, match=r"recipe: .*victim/recipes/ours' belongs to a di"
    ):
        start("projects/victim/recipes/ours")
    ratios = recipe_pb2.TrainingRatios(batch=-1.0)
    with pytest.raises(
        InvalidRequestError, match=r"training_ratios\.batch: -1\.0 is not a positive"
    ):
        start("mup-adam", pb.RunOpening(training_ratios=ratios))
    unknown = layout_pb2.Layout(groups=[layout_pb2.Group(name="new.weight")])
    with pytest.raises(LayoutMismatchError, match=r"new\.weight"):
        start("mup-adam", pb.RunOpening(layout=unknown))
    stub = advisor_service_pb2_grpc.AdvisorServiceStub(client.channel())
    requests = [pb.RecommendLRRequest(opening=opened(project)), pb.RecommendLRRequest()]
    answers = stub.RecommendLR(iter(requests))
    assert next(answers).multipliers
    with pytest.raises(grpc.RpcError, match="every message after the first carries one"):
        next(answers)


def test_layouts_without_shapes_and_other_optimizers_have_no_rule(
    client: AdvisorClient, project: str
) -> None:
    client.register_profile("gpt", base_content(), project=project)
    bare = opened(project, "mup-adam")
    bare.layout.CopyFrom(layout_message())
    for group in bare.layout.groups:
        group.kind = HIDDEN
    for opening, message in (
        (bare, f"3 of 4 groups (blocks.0.up.weight, blocks.1.up.weight, head.weight): {SHAPES}"),
        (opened(project, "mup-sgd"), f"4 of 4 groups ({', '.join(NAMES[:3])} and 1 more): {OTHER}"),
    ):
        answer = client.recommend_once(opening)
        assert list(answer.multipliers) == [1.0] * 4
        assert not answer.priors
        assert not any(answer.recipe_factors.has_rule)
        assert any(message in warning.message for warning in answer.warnings)


def test_a_run_is_told_once_where_measurement_and_recipe_disagree(
    client: AdvisorClient, project: str
) -> None:
    content = base_content()
    for point in content.points:
        point.relative_errors.extend([0.05] * 4)
    client.register_profile("gpt", content, project=project)
    session = client.open_run(opened(project, "mup-adam"))
    told = []
    for step in range(0, 200, 25):
        # Blocks behave as the recipe says; the head moves the outputs 9 times as far.
        rates = [1.0, 8.0, 12.0, 16.0 * 9]
        answer = session.recommend(
            pb.Measurement(
                step=step,
                unit_rates=rates,
                relative_errors=[0.1] * 4,
                interval_steps=25 if step else 0,
            )
        )
        told += [
            (step, warning.message)
            for warning in answer.warnings
            if warning.kind == pb.WARNING_KIND_RECIPE_DISAGREES
        ]
    session.close()
    [(at, message)] = told
    assert at == 100
    assert message == (
        "1 of 3 measured roles differs from the recipe mup-adam by more than a factor of 2, beyond "
        "noise: head.weight (measured 0.0278, recipe 0.25); check the recipe's conditions "
        "(`advisor recipe show mup-adam`), the layers' kinds in the layout, and initial values"
    )


def test_applied_recipes_are_those_of_runs(client: AdvisorClient, project: str) -> None:
    client.register_profile("gpt", base_content(), project=project)
    client.set_recipe("ours", table(), project=project)
    name = f"projects/{project}/recipes/ours"
    expected = client.recommend_once(opened(project, name)).recipe_factors
    applied = client.apply_recipe(name, described(WIDER), "gpt", optimizer="AdamW", project=project)
    assert (applied.recipe, applied.factors) == (f"{name}@1", expected)
    of_layouts = client.apply_recipe(name, described(WIDER), described(WIDTH), optimizer="AdamW")
    assert of_layouts.factors == expected
    assert [w.partition(":")[0] for w in applied.warnings] == [
        f"the recipe {name}@1 says nothing of 1 of 4 groups (embed.weight)",
        f"the recipe {name}@1 may not fit the training",  # its batch is not given
    ]
    bad = table()
    bad.rows.add().CopyFrom(bad.rows[0])
    with pytest.raises(InvalidRequestError, match=r"rows\[1\]: never applies, because rows\[0\]"):
        client.set_recipe("bad", bad, project=project)
    bad = table()
    bad.rows[0].factors[0].powers[0].ratio = 99  # type: ignore[assignment]
    with pytest.raises(InvalidRequestError, match=r"powers\[0\]\.ratio: 99 is not a value that "):
        client.set_recipe("bad", bad, project=project)
    bad = table(math.inf)
    with pytest.raises(InvalidRequestError, match=r"powers\[0\]\.power: the exponent inf is not"):
        client.set_recipe("bad", bad, project=project)
    with pytest.raises(InvalidRequestError, match="profile: give either a profile or base_layout"):
        apply = recipe_service_pb2.ApplyRecipeRequest(name=name, layout=described(WIDER))
        sent(client, "ApplyRecipe", apply)
    with pytest.raises(InvalidRequestError, match="name: 'mup-adam' is the name of a recipe that "):
        sent(client, "SetRecipe", recipe_service_pb2.SetRecipeRequest(name="mup-adam"))


def test_a_run_that_is_smaller_than_its_base_is_told(client: AdvisorClient, project: str) -> None:
    content = base_content(policy_pb2.Policy(recipe="completep"))
    content.layout.CopyFrom(described(WIDER))
    client.register_profile("gpt", content, project=project)
    opening = opened(project)
    opening.layout.CopyFrom(described(WIDTH))
    message = (
        "the recipe completep is for models that grow: the run is smaller than its base (fan_in "
        "0.25 times the base's); the powers hold, but their sources only tested growth, so "
        "measure, too (blocks.0.up.weight, blocks.1.up.weight, head.weight)"
    )
    started = client.recommend_once(opening)
    session = client.open_run(opening)
    measured = session.recommend(pb.Measurement(step=0, unit_rates=[1.0, 2.0, 3.0, 4.0]))
    session.close()
    for answer in (started, measured):
        found = [w.message for w in answer.warnings if w.kind == pb.WARNING_KIND_RECIPE]
        assert found == [message]
    assert message in client.validate_layout(opening).warnings  # as attach() shows them
    applied = client.apply_recipe("completep", described(WIDTH), "gpt", project=project)
    assert list(applied.warnings) == [message]
    grown = client.apply_recipe("completep", described(WIDER), described(WIDTH), optimizer="AdamW")
    assert not any("smaller" in warning for warning in grown.warnings)


def test_a_check_of_a_layout_knows_batch_and_steps_as_a_run_does(
    client: AdvisorClient, project: str
) -> None:
    content = base_content(policy_pb2.Policy(recipe="square-root-batch"))
    base_batch = content.provenance.batch_size
    client.register_profile("gpt", content, project=project)
    opening = opened(project)
    priors = {}
    for batch in (0, base_batch, 16 * base_batch):
        opening.batch_size = batch
        mappings = client.validate_layout(opening).mappings
        priors[batch] = [mapping.prior for mapping in mappings]
        assert priors[batch] == list(client.recommend_once(opening).priors)
    assert priors == {0: [1.0] * 4, base_batch: [1.0] * 4, 16 * base_batch: [4.0] * 4}
    opening.recipe, opening.total_steps = "completed-p", 5 * content.points[-1].step
    by_tokens = [mapping.prior for mapping in client.validate_layout(opening).mappings]
    assert by_tokens == list(client.recommend_once(opening).priors)
    opening.total_steps = 0
    assert by_tokens != [mapping.prior for mapping in client.validate_layout(opening).mappings]
    for field in ("batch_size", "total_steps"):
        arguments: dict[str, Any] = {field: -1, "project": project}
        with pytest.raises(InvalidRequestError, match=f"^{field}: -1 is below 0"):
            client.check_layout("gpt", opening.layout, **arguments)


def relu_net(width: int) -> nn.Sequential:
    torch.manual_seed(width)
    sizes = [(16, width), (width, width), (width, 64)]
    pairs = [(nn.Linear(*size), nn.ReLU()) for size in sizes]
    return nn.Sequential(*[part for pair in pairs for part in pair][:-1])


def test_biases_of_a_wider_sequential_are_initialized_as_large_as_those_of_the_base(
    client: AdvisorClient, project: str
) -> None:
    """PyTorch draws them from the fan-in, and a recipe has one factor for all biases."""
    base, run = relu_net(64), relu_net(512)
    content = content_message([name for name, _ in base.named_parameters()])
    optimizer = torch.optim.AdamW(base.parameters())
    content.layout.CopyFrom(fslr.torch.ModelGroups(base, optimizer).layout())
    client.register_profile("net", content, project=project)
    before = [bias_rms(net, i) for net in (base, run) for i in (2, 4)]
    attachment = fslr.torch.attach(
        run,
        torch.optim.AdamW(run.parameters()),
        profile=f"projects/{project}/profiles/net",
        advisor=client,
        recipe="mup-adam",
        initialize=True,
    )
    factors = {name: a.initial_factor for name, a in attachment.by_name().items()}
    shown = attachment.explain()
    attachment.close()
    assert before[0] / before[2] == pytest.approx(8**0.5, rel=0.1)
    for i in (0, 2, 4):
        assert bias_rms(run, i) == pytest.approx(bias_rms(base, i), rel=1e-5)
    assert factors["0.bias"] == pytest.approx(1, rel=0.2)
    assert factors["2.bias"] == pytest.approx(8**0.5, rel=0.2)
    assert re.search(
        r"^0\.bias \(1\) .*^2\.bias \(1\) .*^4\.bias \(1\) ", shown, re.MULTILINE | re.DOTALL
    )


def bias_rms(net: nn.Sequential, layer: int) -> float:
    bias = net.get_parameter(f"{layer}.bias")
    return float(bias.detach().square().mean().sqrt())
