"""Openings of runs and mappings of layouts: messages to domain objects and back."""

from __future__ import annotations

from advisor.advising.advice import Advice
from advisor.advising.mismatch_warnings import Training
from advisor.advising.opening import Opening
from advisor.policy import (
    InvalidValueError,
    Layout,
    Match,
    shown,
)
from advisor.policy.ranges import COUNT, NON_NEGATIVE
from advisor.registry.profiles import check_words
from advisor.registry.resource_names import ProfileReference, RunName
from advisor.wire.field_paths import field_path
from advisor.wire.layouts import initial_rms_from_proto, layout_from_proto
from advisor.wire.policies import policy_from_proto, recipe_name, weight_decay_to_proto
from advisor.wire.recipes import training_ratios_from_proto
from fslr.advisor.v1 import advisor_service_pb2, policy_pb2, profile_service_pb2

_MAX_SESSION_CHARACTERS = 64
_MATCHES = {
    Match.NONE: policy_pb2.MATCH_NONE,
    Match.NAME: policy_pb2.MATCH_NAME,
    Match.ROLE: policy_pb2.MATCH_ROLE,
    Match.ALIAS: policy_pb2.MATCH_ALIAS,
    Match.NEAREST_ROLE: policy_pb2.MATCH_NEAREST_ROLE,
}


def opening_from_proto(
    message: advisor_service_pb2.RunOpening, layout: Layout | None = None
) -> Opening:
    """Return the opening of a message.

    Args:
        message: The message.
        layout: The message's layout if it was converted before, with any initial weights; None
            converts it.

    Raises:
        InvalidValueError: A value is out of its range; the field's path begins at ``opening``.
    """
    with field_path("opening.layout"):
        if layout is None:
            layout = layout_from_proto(message.layout)
        else:
            initial_rms = initial_rms_from_proto(message.layout)
            layout = layout.with_initial_rms(initial_rms) if initial_rms else layout
    with field_path("opening.policy"):
        policy = policy_from_proto(message.policy) if message.HasField("policy") else None
    with field_path("opening.training_ratios"):
        ratios = training_ratios_from_proto(message.training_ratios)
    COUNT.check("opening.total_steps", message.total_steps)
    COUNT.check("opening.batch_size", message.batch_size)
    NON_NEGATIVE.check("opening.base_learning_rate", message.base_learning_rate)
    check_words("opening.optimizer", message.optimizer)
    check_words("opening.loss_name", message.loss_name)
    check_words("opening.session", message.session, max_characters=_MAX_SESSION_CHARACTERS)
    profile = ProfileReference.parse("opening.profile", message.profile)
    run = RunName.parse("opening.run", message.run) if message.run else None
    if run and run.project != profile.name.project:
        raise InvalidValueError(
            "opening.profile",
            f"{shown(message.profile)} belongs to a different project than the run "
            f"{shown(message.run)}; a run uses profiles of its own project",
        )
    return Opening(
        profile=profile,
        run=run,
        layout=layout,
        policy=policy,
        total_steps=message.total_steps,
        observe_only=message.observe_only,
        training=Training(
            message.base_learning_rate, message.optimizer, message.batch_size, message.loss_name
        ),
        recipe=recipe_name("opening.recipe", message.recipe),
        ratios=ratios,
    )


def mapping_to_proto(advice: Advice) -> profile_service_pb2.ValidateLayoutResponse:
    """Return the message that shows how an advice's layout maps onto its profile."""
    groups, base = advice.layout.groups, advice.base_layout.groups
    factors = advice.first_depth_factors()
    sources: list[list[str]] = [[] for _ in groups]
    for target, source in zip(advice.mapping.targets, advice.mapping.sources, strict=True):
        sources[target].append(base[source].name)
    return profile_service_pb2.ValidateLayoutResponse(
        profile=str(advice.info.reference),
        mappings=[
            profile_service_pb2.GroupMapping(
                group=group.name,
                role=group.role,
                sources=sources[i],
                depth_factor=factors[i],
                match=_MATCHES[advice.mapping.matches[i]],
                prior=advice.priors[i],
            )
            for i, group in enumerate(groups)
        ],
        unmatched=[
            group.name
            for group, matched in zip(groups, advice.mapping.matched, strict=True)
            if not matched
        ],
        refusal=str(advice.refusal or ""),
        warnings=advice.start_warnings(),
        weight_decay=weight_decay_to_proto(advice.policy.weight_decay),
        policy=advice.policy_name,
        min_interval_steps=advice.policy.min_interval_steps,
        max_interval_steps=advice.policy.max_interval_steps,
        recipe=advice.recipe_name,
        min_multiplier=advice.policy.min_multiplier,
        max_multiplier=advice.policy.max_multiplier,
    )
