"""The calls of the service: recommendations, profiles, policies, runs, audit, status."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import grpc

from fslr.advisor.v1 import (
    advisor_service_pb2,
    advisor_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    layout_pb2,
    policy_pb2,
    policy_service_pb2,
    policy_service_pb2_grpc,
    profile_pb2,
    profile_service_pb2,
    profile_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
    status_service_pb2,
    status_service_pb2_grpc,
)
from fslr.client.channel import Connection
from fslr.client.status_errors import service_error
from fslr.client.stream import StreamSession
from fslr.errors import ServiceError
from fslr.resource_names import DEFAULT_PROJECT, policy_name, profile_name, project_name, run_name


def _new_id() -> str:
    return uuid.uuid4().hex


class AdvisorClient(Connection):
    """Talks to one advisor service.

    The channel opens at the first call, and anew in a forked process, so that attaching before data
    loader workers are forked does no harm.

    Args:
        address: ``host:port`` of the service. Calls and streams go round the replicas, if the name
            has several addresses; ``ipv4:HOST:PORT,HOST:PORT`` names them one by one.
        deadline_s: Longest wait for an answer, in seconds.
        actor: Who makes the calls, for the record of writes. Default: the user of this process.
        tls: Files for TLS, read again when they change; without ``cert`` the client shows none.
            Default: what ``FSLR_TLS_CA``, ``FSLR_TLS_CERT`` and ``FSLR_TLS_KEY`` name; where none
            is set, nothing is encrypted.
        token: The token to show. Default: ``FSLR_TOKEN``, or what the file ``FSLR_TOKEN_FILE``
            holds, which is read again when it changes.
        allow_insecure: Send the token to other machines without TLS. Default: whether
            ``FSLR_ALLOW_INSECURE`` is ``1`` or ``true``.

    Raises:
        CertificateError: The files cannot be used.
        TokenError: The token cannot be used, or others could read it on its way.
        ServiceError: By every method, when the advisor refuses or cannot answer.
    """

    # Recommendations

    def validate_layout(
        self, opening: advisor_service_pb2.RunOpening
    ) -> profile_service_pb2.ValidateLayoutResponse:
        """Return how a run's layout maps onto its profile, or why the run would be refused."""
        return self.check_layout(
            opening.profile,
            opening.layout,
            opening.policy if opening.HasField("policy") else None,
        )

    def open_run(self, opening: advisor_service_pb2.RunOpening) -> StreamSession:
        """Begin a run over a ``RecommendLR`` stream."""
        return StreamSession(
            lambda requests: advisor_service_pb2_grpc.AdvisorServiceStub(
                self.channel()
            ).RecommendLR(requests, metadata=self.metadata()),
            opening,
            address=self.address,
            deadline_s=self.deadline_s,
        )

    def recommend_once(
        self,
        opening: advisor_service_pb2.RunOpening,
        measurement: advisor_service_pb2.Measurement,
    ) -> advisor_service_pb2.RecommendLRResponse:
        """Return the answer to one measurement."""
        stub = advisor_service_pb2_grpc.AdvisorServiceStub(self.channel())
        request = advisor_service_pb2.RecommendLRRequest(opening=opening, measurement=measurement)
        return self._call(stub.RecommendLROnce, request)

    # Profiles

    @property
    def _profiles(self) -> profile_service_pb2_grpc.ProfileServiceStub:
        return profile_service_pb2_grpc.ProfileServiceStub(self.channel())

    def register_profile(
        self,
        profile: str,
        content: profile_pb2.ProfileContent,
        *,
        project: str = DEFAULT_PROJECT,
        request_id: str = "",
    ) -> profile_service_pb2.RegisterProfileResponse:
        """Store a version; the same content again is the same version.

        Args:
            profile: The profile.
            content: What it says, with a complete provenance.
            project: The project.
            request_id: Names the request for a retry of the caller's own. Default: a new one, which
                the retries of this call share.
        """
        request = profile_service_pb2.RegisterProfileRequest(
            name=profile_name(profile, project), content=content, request_id=request_id or _new_id()
        )
        return self._call(self._profiles.RegisterProfile, request)

    def get_profile(
        self, profile: str, *, project: str = DEFAULT_PROJECT
    ) -> profile_service_pb2.GetProfileResponse:
        """Return one version with its content, and the versions there are."""
        request = profile_service_pb2.GetProfileRequest(name=profile_name(profile, project))
        return self._call(self._profiles.GetProfile, request)

    def list_profiles(
        self, *, project: str = DEFAULT_PROJECT, label_filter: str = ""
    ) -> Iterator[profile_pb2.Profile]:
        """Iterate over the latest versions of a project's profiles, without their points.

        Args:
            project: The project.
            label_filter: ``labels.KEY=VALUE``, several joined by ``" AND "``.
        """
        request = profile_service_pb2.ListProfilesRequest(
            parent=project_name(project), filter=label_filter
        )
        while True:
            page = self._call(self._profiles.ListProfiles, request)
            yield from page.profiles
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def set_alias(
        self,
        profile: str,
        alias: str,
        *,
        expected_version: int | None = None,
        etag: str = "",
        project: str = DEFAULT_PROJECT,
        request_id: str = "",
    ) -> profile_service_pb2.SetProfileAliasResponse:
        """Let an alias name a version.

        Args:
            profile: The version, such as ``char-gpt@3``.
            alias: The alias, such as ``prod``.
            expected_version: What the alias must name now; 0: nothing; None: anything.
            etag: The alias must not have moved since it was read with this; empty: not checked.
            project: The project.
            request_id: As in :meth:`register_profile`.
        """
        request = profile_service_pb2.SetProfileAliasRequest(
            name=profile_name(profile, project),
            alias=alias,
            expected_version=expected_version,
            etag=etag,
            request_id=request_id or _new_id(),
        )
        return self._call(self._profiles.SetProfileAlias, request)

    def delete_alias(
        self,
        profile: str,
        alias: str,
        *,
        etag: str = "",
        project: str = DEFAULT_PROJECT,
        request_id: str = "",
    ) -> None:
        """Take an alias away; the version that it named stays.

        Args:
            profile: The profile, without a suffix.
            alias: The alias.
            etag: The alias must not have moved since it was read with this; empty: not checked.
            project: The project.
            request_id: Names the request for retries of the caller's own. Default: a new one.
        """
        request = profile_service_pb2.DeleteProfileAliasRequest(
            name=profile_name(profile, project),
            alias=alias,
            etag=etag,
            request_id=request_id or _new_id(),
        )
        self._call(self._profiles.DeleteProfileAlias, request)

    def delete_profile(
        self, profile: str, *, project: str = DEFAULT_PROJECT, request_id: str = ""
    ) -> None:
        """Remove one version.

        Args:
            profile: The version, such as ``char-gpt@3``.
            project: The project.
            request_id: Names the request for retries of the caller's own. Default: a new one.
        """
        request = profile_service_pb2.DeleteProfileRequest(
            name=profile_name(profile, project), request_id=request_id or _new_id()
        )
        self._call(self._profiles.DeleteProfile, request)

    def check_layout(
        self,
        profile: str,
        layout: layout_pb2.Layout,
        policy: policy_pb2.Policy | None = None,
        *,
        project: str = DEFAULT_PROJECT,
    ) -> profile_service_pb2.ValidateLayoutResponse:
        """Return how a layout maps onto a profile, or why a run with it would be refused."""
        request = profile_service_pb2.ValidateLayoutRequest(
            name=profile_name(profile, project), layout=layout, policy=policy
        )
        return self._call(self._profiles.ValidateLayout, request)

    def set_policy(
        self,
        policy: str,
        rules: policy_pb2.Policy,
        *,
        expected_version: int | None = None,
        project: str = DEFAULT_PROJECT,
        request_id: str = "",
    ) -> policy_service_pb2.SetPolicyResponse:
        """Store a version of a policy; the rules that it has already make no new one.

        Args:
            policy: The policy, such as ``careful``.
            rules: The rules; absent ones mean their defaults.
            expected_version: What the latest version must be; 0: none; None: any.
            project: The project.
            request_id: Names the request for retries of the caller's own. Default: a new one.
        """
        request = policy_service_pb2.SetPolicyRequest(
            name=policy_name(policy, project),
            policy=rules,
            expected_version=expected_version,
            request_id=request_id or _new_id(),
        )
        return self._call(self._policies.SetPolicy, request)

    def get_policy(
        self, policy: str, *, project: str = DEFAULT_PROJECT
    ) -> policy_service_pb2.PolicyVersion:
        """Return one version of a policy."""
        request = policy_service_pb2.GetPolicyRequest(name=policy_name(policy, project))
        return self._call(self._policies.GetPolicy, request).policy

    def list_policies(
        self, *, project: str = DEFAULT_PROJECT
    ) -> Iterator[policy_service_pb2.PolicyVersion]:
        """Iterate over the latest versions of a project's policies."""
        request = policy_service_pb2.ListPoliciesRequest(parent=project_name(project))
        while True:
            page = self._call(self._policies.ListPolicies, request)
            yield from page.policies
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    @property
    def _policies(self) -> policy_service_pb2_grpc.PolicyServiceStub:
        return policy_service_pb2_grpc.PolicyServiceStub(self.channel())

    def audit_events(
        self, *, project: str = DEFAULT_PROJECT
    ) -> Iterator[audit_service_pb2.AuditEvent]:
        """Iterate over the writes of a project, the newest first."""
        stub = audit_service_pb2_grpc.AuditServiceStub(self.channel())
        request = audit_service_pb2.ListAuditEventsRequest(parent=project_name(project))
        while True:
            page = self._call(stub.ListAuditEvents, request)
            yield from page.events
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def status(self) -> status_service_pb2.GetStatusResponse:
        """Return how the service that answers is set up, and as whom it sees this client."""
        stub = status_service_pb2_grpc.StatusServiceStub(self.channel())
        return self._call(stub.GetStatus, status_service_pb2.GetStatusRequest())

    # Runs

    @property
    def _runs(self) -> run_service_pb2_grpc.RunServiceStub:
        return run_service_pb2_grpc.RunServiceStub(self.channel())

    def list_runs(self, *, project: str = DEFAULT_PROJECT) -> Iterator[run_service_pb2.Run]:
        """Iterate over a project's runs, the latest begun first."""
        request = run_service_pb2.ListRunsRequest(parent=project_name(project))
        while True:
            page = self._call(self._runs.ListRuns, request)
            yield from page.runs
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def get_run(self, run: str, *, project: str = DEFAULT_PROJECT) -> run_service_pb2.Run:
        """Return one run."""
        request = run_service_pb2.GetRunRequest(name=run_name(run, project))
        return self._call(self._runs.GetRun, request).run

    def run_history(
        self, run: str, *, project: str = DEFAULT_PROJECT
    ) -> Iterator[run_service_pb2.RunEvent]:
        """Iterate over a run's stored events, oldest first."""
        request = run_service_pb2.GetRunHistoryRequest(name=run_name(run, project))
        while True:
            page = self._call(self._runs.GetRunHistory, request)
            yield from page.events
            if not page.more:
                return
            request.after_id = page.events[-1].id

    def watch_run(
        self, run: str, *, after_id: str = "", project: str = DEFAULT_PROJECT
    ) -> Iterator[run_service_pb2.RunEvent]:
        """Iterate over a run's events as they come, until the caller stops.

        Args:
            run: The run.
            after_id: Events after this one; empty: all that are kept, then new ones.
            project: The project.

        Yields:
            The events.

        Raises:
            ServiceError: The advisor refused, or ended the watch.
        """
        request = run_service_pb2.WatchRunRequest(name=run_name(run, project), after_id=after_id)
        call = self._runs.WatchRun(request, metadata=self.metadata())
        try:
            for response in call:
                yield response.event
        except grpc.RpcError as error:
            told: ServiceError = service_error(error, self.address)
            raise told from error
        finally:
            call.cancel()
