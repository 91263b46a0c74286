"""ProfileService: the registry of reference profiles."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import grpc

from advisor import wire
from advisor.advising.advice import Advice
from advisor.advising.mismatch_warnings import Training
from advisor.advising.opening import Opening
from advisor.advising.recipes import RecipeSource
from advisor.advising.resolved_profile import ProfileSource
from advisor.policy import InvalidValueError, shown
from advisor.policy.ranges import COUNT
from advisor.registry.profiles import Alias, ProfileVersion, check_words
from advisor.registry.resource_names import (
    PolicyReference,
    ProfileReference,
    check_id,
    parse_profile_name,
    parse_project,
)
from advisor.rpc.audit_origin import audit_origin_of
from advisor.rpc.offloading import compute, smooth_reference
from advisor.rpc.paging import decode_token, encode_token, page_size, parse_filter
from advisor.rpc.requests import check_recipe, expected_version_of
from advisor.store.deletion import Deletions
from advisor.store.policies import PolicyStore
from advisor.store.profiles import ProfileStore
from advisor.wire.field_paths import field_path
from advisor.wire.policies import recipe_name
from advisor.wire.recipes import training_ratios_from_proto
from fslr.advisor.v1 import profile_pb2, profile_service_pb2_grpc
from fslr.advisor.v1 import profile_service_pb2 as pb

_Context = grpc.aio.ServicerContext[Any, Any]
_CURSOR = re.compile(r"[a-z][a-z0-9-]{0,62}")


class ProfileServicer(profile_service_pb2_grpc.ProfileServiceServicer):
    """Serves the registry.

    Args:
        store: Stores the profiles.
        policies: Stores the policies that profiles name.
        deletions: Deletes whole profiles.
        profiles: Resolves the profiles that layouts are validated against.
        recipes: Resolves the recipes of runs.
        now: The clock.
    """

    def __init__(
        self,
        store: ProfileStore,
        policies: PolicyStore,
        deletions: Deletions,
        profiles: ProfileSource,
        *,
        recipes: RecipeSource,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._policies = policies
        self._deletions = deletions
        self._profiles = profiles
        self._recipes = recipes
        self._now = now

    async def RegisterProfile(
        self, request: pb.RegisterProfileRequest, context: _Context
    ) -> pb.RegisterProfileResponse:
        """Store a version of a profile."""
        name = parse_profile_name("name", request.name)
        with field_path("content"):
            content = await asyncio.to_thread(wire.content_from_proto, request.content)
        if content.header.policy_name:
            named = PolicyReference.parse("content.policy_name", content.header.policy_name)
            if named.project != name.project:
                raise InvalidValueError(
                    "content.policy_name",
                    f"{named} belongs to a different project than the profile {name}",
                )
            await self._policies.get(named)  # raises if there is none
        with field_path("content.policy"):
            await check_recipe(self._recipes, content.header.policy.recipe, name.project)
        origin = audit_origin_of(context, self._now(), request.request_id)
        with field_path("content"):
            info, created = await self._store.register(name, content, origin)
        warnings = await asyncio.to_thread(content.warnings)
        return pb.RegisterProfileResponse(
            profile=wire.version_to_proto(info, content.header, warnings), created=created
        )

    async def GetProfile(
        self, request: pb.GetProfileRequest, context: _Context
    ) -> pb.GetProfileResponse:
        """Return one version."""
        reference = ProfileReference.parse("name", request.name)
        version = await self._store.get(reference)
        return pb.GetProfileResponse(
            profile=await asyncio.to_thread(_with_warnings, version),
            versions=version.versions,
            aliases=[_alias(alias) for alias in version.aliases],
        )

    async def ListProfiles(
        self, request: pb.ListProfilesRequest, context: _Context
    ) -> pb.ListProfilesResponse:
        """Return a page of latest versions."""
        found, after = await self._store.index.page(
            parse_project("parent", request.parent),
            after=decode_token(request.page_token, _CURSOR),
            size=page_size(request.page_size),
            labels=parse_filter(request.filter),
        )
        return pb.ListProfilesResponse(
            profiles=[wire.summary_to_proto(info, summary) for info, summary in found],
            next_page_token=encode_token(after),
        )

    async def SetProfileAlias(
        self, request: pb.SetProfileAliasRequest, context: _Context
    ) -> pb.SetProfileAliasResponse:
        """Point an alias to a version."""
        reference = ProfileReference.parse("name", request.name)
        expected = expected_version_of(request)
        info, before, alias = await self._store.set_alias(
            reference,
            check_id("alias", "alias", request.alias),
            audit_origin_of(context, self._now(), request.request_id),
            expected_version=expected,
            expected_moves=_moves(request.etag),
        )
        return pb.SetProfileAliasResponse(
            profile=wire.summary_to_proto(info, None),
            previous_version=before,
            alias=_alias(alias),
        )

    async def DeleteProfileAlias(
        self, request: pb.DeleteProfileAliasRequest, context: _Context
    ) -> pb.DeleteProfileAliasResponse:
        """Delete an alias."""
        await self._store.delete_alias(
            parse_profile_name("name", request.name),
            check_id("alias", "alias", request.alias),
            audit_origin_of(context, self._now(), request.request_id),
            expected_moves=_moves(request.etag),
        )
        return pb.DeleteProfileAliasResponse()

    async def DeleteProfile(
        self, request: pb.DeleteProfileRequest, context: _Context
    ) -> pb.DeleteProfileResponse:
        """Delete one version, or a whole profile."""
        origin = audit_origin_of(context, self._now(), request.request_id)
        if request.all_versions:
            await self._deletions.delete_profile(parse_profile_name("name", request.name), origin)
            return pb.DeleteProfileResponse()
        await self._store.delete(ProfileReference.parse("name", request.name), origin)
        return pb.DeleteProfileResponse()

    async def ValidateLayout(
        self, request: pb.ValidateLayoutRequest, context: _Context
    ) -> pb.ValidateLayoutResponse:
        """Return how a layout maps onto a profile."""
        names = len(request.layout.groups) + len(request.layout.frozen_names)
        with field_path("layout"):
            layout = await compute(names, wire.layout_from_proto, request.layout)
        with field_path("policy"):
            policy = wire.policy_from_proto(request.policy) if request.HasField("policy") else None
        with field_path("training_ratios"):
            ratios = training_ratios_from_proto(request.training_ratios)
        check_words("optimizer", request.optimizer)
        COUNT.check("total_steps", request.total_steps)
        COUNT.check("batch_size", request.batch_size)
        opening = Opening(
            ProfileReference.parse("name", request.name),
            layout,
            policy=policy,
            total_steps=request.total_steps,
            training=Training(optimizer=request.optimizer, batch_size=request.batch_size),
            recipe=recipe_name("recipe", request.recipe),
            ratios=ratios,
        )
        resolved = await self._profiles.resolve(opening.profile)
        named = resolved.recipe(opening)
        recipe = None if named is None else await self._recipes.resolve(named)
        names += resolved.loaded.name_count
        await smooth_reference(resolved.loaded, resolved.rules(opening))
        try:
            advice = await compute(names, Advice, resolved, opening, None, recipe)
        except InvalidValueError as error:
            if error.field != "profile":
                raise
            raise InvalidValueError("name", error.description) from None
        return await compute(names, wire.mapping_to_proto, advice)


def _with_warnings(version: ProfileVersion) -> profile_pb2.Profile:
    return wire.version_to_proto(version.info, version.content, version.content.warnings())


def _alias(alias: Alias) -> pb.Alias:
    return pb.Alias(name=alias.name, version=alias.version, etag=str(alias.moves))


def _moves(etag: str) -> int | None:
    if not etag:
        return None
    if not (etag.isascii() and etag.isdigit() and len(etag) < 16):
        raise InvalidValueError(
            "etag", f"{shown(etag)} is not an etag of this service; read the alias again"
        )
    return int(etag)
