"""Calls about policies."""

from __future__ import annotations

from collections.abc import Iterator

from fslr.advisor.v1 import policy_pb2, policy_service_pb2, policy_service_pb2_grpc
from fslr.client.channel import Connection
from fslr.client.pagination import pages_by_token
from fslr.client.request_ids import new_request_id
from fslr.resource_names import DEFAULT_PROJECT, policy_name, project_name


class PolicyCalls(Connection):
    """The calls of :class:`.AdvisorClient` about policies."""

    @property
    def _policies(self) -> policy_service_pb2_grpc.PolicyServiceStub:
        return policy_service_pb2_grpc.PolicyServiceStub(self.channel())

    def set_policy(
        self,
        policy: str,
        rules: policy_pb2.Policy,
        *,
        expected_version: int | None = None,
        project: str = DEFAULT_PROJECT,
        request_id: str = "",
    ) -> policy_service_pb2.SetPolicyResponse:
        """Store a policy as a new version; unchanged rules keep the latest version.

        Args:
            policy: The policy, such as ``careful``.
            rules: The rules; absent ones take their defaults.
            expected_version: The latest version that the policy must have now; 0: the policy must
                not exist; None: not checked.
            project: The project.
            request_id: As in :meth:`.ProfileCalls.register_profile`.
        """
        request = policy_service_pb2.SetPolicyRequest(
            name=policy_name(policy, project),
            policy=rules,
            expected_version=expected_version,
            request_id=request_id or new_request_id(),
        )
        return self._call(self._policies.SetPolicy, request)

    def get_policy(
        self, policy: str, *, project: str = DEFAULT_PROJECT
    ) -> policy_service_pb2.PolicyVersion:
        """Return a policy's latest version, or the one in its suffix, such as ``careful@2``."""
        request = policy_service_pb2.GetPolicyRequest(name=policy_name(policy, project))
        return self._call(self._policies.GetPolicy, request).policy

    def delete_policy(
        self,
        policy: str,
        *,
        expected_version: int | None = None,
        project: str = DEFAULT_PROJECT,
        request_id: str = "",
    ) -> None:
        """Delete a policy with all its versions; no stored profile may name it.

        Args:
            policy: The policy, without a version.
            expected_version: The latest version that the policy must have now; None: not checked.
            project: The project.
            request_id: As in :meth:`.ProfileCalls.register_profile`.
        """
        request = policy_service_pb2.DeletePolicyRequest(
            name=policy_name(policy, project),
            expected_version=expected_version,
            request_id=request_id or new_request_id(),
        )
        self._call(self._policies.DeletePolicy, request)

    def list_policies(
        self, *, project: str = DEFAULT_PROJECT
    ) -> Iterator[policy_service_pb2.PolicyVersion]:
        """Iterate over the latest versions of a project's policies."""
        request = policy_service_pb2.ListPoliciesRequest(parent=project_name(project))
        for page in pages_by_token(lambda r: self._call(self._policies.ListPolicies, r), request):
            yield from page.policies
