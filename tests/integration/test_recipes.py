"""Recipes as resources, and runs that follow them before and beside measurements."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from google.protobuf.json_format import MessageToJson
from torch import nn

import fslr.torch
from advisor.local.in_process import InProcessAdvisor
from advisor.recipes import NoRule
from fslr import (
    AdvisorClient,
    InvalidRequestError,
    LayoutMismatchError,
    RecipeInUseError,
    RecipeMovedError,
    RecipeNotFoundError,
)
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import (
    advisor_service_pb2_grpc,
    layout_pb2,
    policy_pb2,
    profile_pb2,
    recipe_pb2,
    recipe_service_pb2,
    recipe_service_pb2_grpc,
)
from fslr.client.status_errors import service_error
from tests.building import NAMES, content_message, describe_tensors, layout_message, opening_message
from tests.commands import Cli
from tests.waiting import eventually

EMBEDDING, HIDDEN = layout_pb2.GROUP_KIND_EMBEDDING, layout_pb2.GROUP_KIND_HIDDEN
FAN_IN, BATCH = recipe_pb2.RATIO_FAN_IN, recipe_pb2.RATIO_BATCH
LEARNING_RATE = recipe_pb2.RECIPE_FIELD_LEARNING_RATE
SHAPES, OTHER = NoRule.SHAPES.value, NoRule.OPTIMIZER.value
WIDTH, WIDER = 8, 32
RMS = 0.02


def factor(
    field: recipe_pb2.RecipeField.ValueType, powers: dict[recipe_pb2.Ratio.ValueType, float]
) -> recipe_pb2.RecipeFactor:
    return recipe_pb2.RecipeFactor(
        field=field,
        powers=[recipe_pb2.RatioPower(ratio=ratio, power=power) for ratio, power in powers.items()],
    )


def table(power: float = -1.0) -> recipe_pb2.Recipe:
    """Return a recipe for hidden matrices only."""
    return recipe_pb2.Recipe(
        description="Ours.",
        source="A test.",
        optimizers=["Adam"],
        conditions=["Heads keep their size."],
        rows=[
            recipe_pb2.RecipeRow(
                kinds=[HIDDEN],
                factors=[
                    factor(LEARNING_RATE, {FAN_IN: power, BATCH: 0.5}),
                    factor(recipe_pb2.RECIPE_FIELD_WEIGHT_DECAY, {FAN_IN: 1.0}),
                    factor(recipe_pb2.RECIPE_FIELD_EPSILON, {FAN_IN: -1.0}),
                    factor(recipe_pb2.RECIPE_FIELD_ONE_MINUS_BETA2, {BATCH: 1.0}),
                    factor(recipe_pb2.RECIPE_FIELD_INITIAL_SCALE, {FAN_IN: -0.5}),
                ],
            )
        ],
    )


def described(width: int) -> layout_pb2.Layout:
    layout = layout_message()
    describe_tensors(layout, width=width, rms=RMS)
    layout.groups[0].kind = EMBEDDING
    return layout


def base_content(policy: policy_pb2.Policy | None = None) -> profile_pb2.ProfileContent:
    content = content_message(policy=policy)
    content.layout.CopyFrom(described(WIDTH))
    return content


def opened(project: str, recipe: str = "", run: str = "") -> pb.RunOpening:
    opening = opening_message(f"projects/{project}/profiles/gpt", run=run)
    opening.layout.CopyFrom(described(WIDER))
    opening.optimizer, opening.recipe = "AdamW", recipe
    return opening


def test_a_recipe_has_versions_and_an_audit_log(client: AdvisorClient, project: str) -> None:
    first = client.set_recipe("ours", table(), project=project)
    again = client.set_recipe("ours", table(), project=project)
    second = client.set_recipe("ours", table(-0.5), expected_version=1, project=project)
    assert [(r.recipe.version, r.created) for r in (first, again, second)] == [
        *((1, True), (1, False), (2, True)),
    ]
    assert client.get_recipe("ours@1", project=project).recipe == first.recipe.recipe
    latest = client.get_recipe("ours", project=project)
    assert latest.name == f"projects/{project}/recipes/ours@2"
    assert latest.recipe.rows[0].factors[0] == factor(LEARNING_RATE, {FAN_IN: -0.5, BATCH: 0.5})
    assert list(latest.recipe.covers) == [FAN_IN, BATCH]
    listed = list(client.list_recipes(project=project))
    assert [r.name for r in listed if r.version] == [latest.name]
    assert "mup-adam" in {r.name for r in listed if not r.version}
    assert client.get_shipped_recipe("mup-adam").recipe.optimizers == ["Adam"]
    with pytest.raises(RecipeMovedError, match=r"latest version of recipe .*ours' is 2, not 1 as"):
        client.set_recipe("ours", table(), expected_version=1, project=project)
    with pytest.raises(RecipeNotFoundError, match="its versions are 1 to 2"):
        client.get_recipe("ours@3", project=project)
    with pytest.raises(RecipeNotFoundError, match=r"did you mean .*/ours\?"):
        client.get_recipe("our", project=project)
    with pytest.raises(RecipeNotFoundError, match=r"did you mean mup-adam\?"):
        client.get_recipe("mup-adam", project=project)
    client.delete_recipe("ours", expected_version=2, project=project)
    with pytest.raises(RecipeNotFoundError, match="there is no recipe"):
        client.delete_recipe("ours", project=project)
    third = client.set_recipe("ours", table(), project=project)
    assert third.recipe.version == 3  # numbers are never used again
    events = list(client.list_audit_events(project=project))
    assert [event.action for event in events] == [
        *("set recipe", "delete recipe", "set recipe", "set recipe"),
    ]
    assert events[0].name == "recipes/ours@3"


def test_a_recipe_that_policies_or_profiles_name_is_not_deleted(
    client: AdvisorClient, project: str
) -> None:
    name = f"projects/{project}/recipes/ours"
    with pytest.raises(RecipeNotFoundError, match="there is no recipe"):
        client.set_policy("team", policy_pb2.Policy(recipe=name), project=project)
    client.set_recipe("ours", table(), project=project)
    client.set_policy("team", policy_pb2.Policy(recipe=f"{name}@1"), project=project)
    client.set_policy("team", policy_pb2.Policy(), project=project)
    with pytest.raises(RecipeInUseError, match=r"ours is named by .*/policies/team@1; delete"):
        client.delete_recipe("ours", project=project)
    client.delete_policy("team", project=project)
    content = base_content(policy_pb2.Policy(recipe=name))
    client.register_profile("gpt", content, project=project)
    with pytest.raises(RecipeInUseError, match=r"ours is named by .*/profiles/gpt@1; delete"):
        client.delete_recipe("ours", project=project)
    client.delete_profile("gpt", all_versions=True, project=project)
    client.delete_recipe("ours", project=project)


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
        "1 of 3 measured roles differ from the recipe mup-adam by more than a factor of 2, beyond "
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
        f"the recipe {name}@1 says nothing of 1 of 4 groups (embed.weight)"
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


def sent(client: AdvisorClient, method: str, request: Any) -> Any:
    """Return the answer to a request that the client's own methods never send."""
    stub = recipe_service_pb2_grpc.RecipeServiceStub(client.channel())
    try:
        return getattr(stub, method)(request)
    except grpc.RpcError as error:
        raise service_error(error, client.address) from error


def test_commands_store_recipes_and_show_them_beside_measurements(
    cli: Cli, client: AdvisorClient, project: str, tmp_path: Path
) -> None:
    assert "no stored recipes in project" in cli.run("recipe", "stored").stdout
    stored = cli.run("recipe", "set", "ours", "mup-adam").stdout
    assert f"set projects/{project}/recipes/ours@1" in stored
    shown = cli.run("recipe", "show", f"projects/{project}/recipes/ours@1").stdout
    assert "hidden, convolution, expert" in shown
    file = tmp_path / "ours.yaml"
    cli.run("recipe", "get", "ours", "--output", str(file))
    assert "unchanged" in cli.run("recipe", "set", "ours", str(file)).stdout
    file.write_text(file.read_text("utf-8").replace("fan_in: -1\n", "fan_in: -0.75\n"), "utf-8")
    assert cli.json("recipe", "set", "ours", str(file), "--expected-version", "1")["created"]
    assert [r["version"] for r in cli.json("recipe", "stored")] == [2]
    assert "ours@2" in cli.run("recipe", "stored").stdout
    file.write_text("groups: [{kinds: [hiden]}]", "utf-8")
    refused = cli.run("recipe", "set", "ours", str(file), ok=False)
    assert "'hiden' is not a kind; did you mean hidden?" in refused.output
    refused = cli.run("recipe", "get", "our", ok=False)
    assert f"did you mean projects/{project}/recipes/ours?" in refused.output
    log = cli.run("audit").stdout
    assert "rows, for Adam" in log

    client.register_profile("gpt", base_content(), project=project)
    cli.run("policy", "set", "team", "-r", f"recipe=projects/{project}/recipes/ours")
    assert f"recipe: projects/{project}/recipes/ours" in cli.run("policy", "show", "team").stdout
    refused = cli.run("policy", "set", "team", "-r", "recipe=mup-adm", ok=False)
    assert "did you mean mup-adam" in refused.output
    refused = cli.run("recipe", "delete", "ours", "--yes", ok=False)
    assert "is named by" in refused.output
    cli.run("policy", "delete", "team", "--yes")

    request = pb.RecommendLRRequest(opening=opened(project))
    request.measurement.unit_rates.extend([1.0, 8.0, 12.0, 16.0 * 9])
    request.measurement.relative_errors.extend([0.1] * 4)
    asked = tmp_path / "request.json"
    asked.write_text(MessageToJson(request), "utf-8")
    shown = cli.json("explain", "gpt", str(asked), "--recipe", "mup-adam")
    assert shown["recipe"] == "mup-adam"
    assert [
        (r["role"], r["recipe"], round(r["measured"], 4), r["agrees"]) for r in shown["roles"]
    ] == [
        ("embed.weight", 1.0, 1.0, True),
        ("blocks.*.up.weight", 0.25, 0.25, True),
        ("head.weight", 0.25, 0.0278, False),
    ]
    text = cli.run("explain", "gpt", str(asked), "--recipe", "mup-adam").stdout
    assert re.search(r"head.weight +0.25 +0.02778 +10% +0.1111 +differs", text)

    run = opened(project, f"projects/{project}/recipes/ours", f"projects/{project}/runs/night")
    session = client.open_run(run)
    session.recommend(request.measurement)
    session.close()
    eventually(lambda: len(list(client.get_run_history("night", project=project))) == 1)
    rules = tmp_path / "rules.yaml"
    rules.write_text("recipe: completep", "utf-8")
    [event] = cli.json("policy", "try", str(rules), "--run", "night")["runs"]["night"]
    assert event["after"] == event["before"]  # the opening has a recipe of its own, a stored one
    cli.run("recipe", "delete", "ours", "--yes")
    assert cli.json("recipe", "stored") == []
