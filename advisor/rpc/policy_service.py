"""PolicyService: policies that several profiles share."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import grpc

from advisor.advising.recipes import RecipeSource
from advisor.policy import InvalidValueError
from advisor.registry.policies import StoredPolicy
from advisor.registry.resource_names import PolicyReference, parse_project
from advisor.rpc.audit_origin import audit_origin_of
from advisor.rpc.paging import decode_token, encode_token, page_size
from advisor.rpc.requests import check_recipe, expected_version_of
from advisor.store.deletion import Deletions
from advisor.store.policies import PolicyStore
from advisor.wire import policy_from_proto, policy_to_proto, timestamp_to_proto
from advisor.wire.field_paths import field_path
from fslr.advisor.v1 import policy_service_pb2 as pb
from fslr.advisor.v1 import policy_service_pb2_grpc

_Context = grpc.aio.ServicerContext[Any, Any]
_CURSOR = re.compile(r"[a-z][a-z0-9-]{0,62}")


class PolicyServicer(policy_service_pb2_grpc.PolicyServiceServicer):
    """Serves the stored policies.

    Args:
        store: Stores the policies.
        deletions: Deletes them.
        recipes: Resolves the recipes that they name.
        now: The clock.
    """

    def __init__(
        self,
        store: PolicyStore,
        deletions: Deletions,
        recipes: RecipeSource,
        now: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._deletions = deletions
        self._recipes = recipes
        self._now = now

    async def SetPolicy(
        self, request: pb.SetPolicyRequest, context: _Context
    ) -> pb.SetPolicyResponse:
        """Store a new version of a policy."""
        reference = PolicyReference.parse("name", request.name)
        if reference.version:
            raise InvalidValueError("name", f"{request.name!r} names a version; leave it out")
        expected = expected_version_of(request)
        with field_path("policy"):
            policy = policy_from_proto(request.policy)
            await check_recipe(self._recipes, policy.recipe, reference.project)
        stored, created = await self._store.set(
            reference,
            policy,
            audit_origin_of(context, self._now(), request.request_id),
            expected_version=expected,
        )
        return pb.SetPolicyResponse(policy=_version(stored), created=created)

    async def GetPolicy(
        self, request: pb.GetPolicyRequest, context: _Context
    ) -> pb.GetPolicyResponse:
        """Return one version."""
        stored = await self._store.get(PolicyReference.parse("name", request.name))
        return pb.GetPolicyResponse(policy=_version(stored))

    async def DeletePolicy(
        self, request: pb.DeletePolicyRequest, context: _Context
    ) -> pb.DeletePolicyResponse:
        """Delete a policy."""
        await self._deletions.delete_policy(
            PolicyReference.parse("name", request.name),
            audit_origin_of(context, self._now(), request.request_id),
            expected_version=expected_version_of(request),
        )
        return pb.DeletePolicyResponse()

    async def ListPolicies(
        self, request: pb.ListPoliciesRequest, context: _Context
    ) -> pb.ListPoliciesResponse:
        """Return a page of latest versions."""
        found, after = await self._store.page(
            parse_project("parent", request.parent),
            after=decode_token(request.page_token, _CURSOR),
            size=page_size(request.page_size),
        )
        return pb.ListPoliciesResponse(
            policies=[_version(stored) for stored in found], next_page_token=encode_token(after)
        )


def _version(stored: StoredPolicy) -> pb.PolicyVersion:
    return pb.PolicyVersion(
        name=str(stored.reference),
        version=stored.reference.version,
        create_time=timestamp_to_proto(stored.create_time),
        policy=None if stored.policy is None else policy_to_proto(stored.policy),
    )
