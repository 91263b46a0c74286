"""A recipe for hidden matrices, and a base and a run whose shapes are known."""

from __future__ import annotations

from advisor.recipes import NoRule
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2, policy_pb2, profile_pb2, recipe_pb2
from tests.building import content_message, describe_tensors, layout_message, opening_message

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
