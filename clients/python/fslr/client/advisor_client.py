"""The client of an advisor service: one method per call."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence

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
from fslr.client.pagination import pages_by_event, pages_by_report, pages_by_token
from fslr.client.status_errors import service_error
from fslr.client.stream import StreamSession
from fslr.errors import ServiceError
from fslr.resource_names import DEFAULT_PROJECT, policy_name, profile_name, project_name, run_name


def _new_id() -> str:
    return uuid.uuid4().hex


class AdvisorClient(Connection):
    """A client of one advisor service.

    Profiles, policies and runs are given as identifiers within ``project``, or as whole resource
    names such as ``projects/nlp/profiles/char-gpt``.

    The channel opens at the first call, and opens anew in a forked process: creating a client
    before data loader workers are forked is safe.

    Args:
        address: ``host:port`` of the service. If the name resolves to several addresses, calls are
            spread over them; ``ipv4:HOST:PORT,HOST:PORT`` lists replicas explicitly.
        deadline_s: Maximum wait for an answer, in seconds.
        actor: The caller's name in the audit log. Default: the user of this process.
        tls: TLS files, which are read again when they change. Default: the files that
            ``FSLR_TLS_CA``, ``FSLR_TLS_CERT`` and ``FSLR_TLS_KEY`` name; if none is set, the
            connection is not encrypted.
        token: The token that authenticates the caller. Default: ``FSLR_TOKEN``, else the content of
            the file that ``FSLR_TOKEN_FILE`` names, which is read again when it changes.
        allow_insecure: Whether the token may be sent to other machines without TLS. Default:
            whether ``FSLR_ALLOW_INSECURE`` is ``1`` or ``true``.

    Raises:
        CertificateError: The TLS files cannot be used.
        TokenError: The token is not valid, or would be sent to another machine unencrypted.
        ServiceError: Raised by every method if the advisor refuses the call or cannot answer it.
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
            optimizer=opening.optimizer,
        )

    def open_run(self, opening: advisor_service_pb2.RunOpening) -> StreamSession:
        """Return a session for a run; its stream opens with the first measurement."""
        return StreamSession(
            lambda requests: advisor_service_pb2_grpc.AdvisorServiceStub(
                self.channel()
            ).RecommendLR(requests, metadata=self.metadata()),
            opening,
            address=self.address,
            deadline_s=self.deadline_s,
            send_metrics=lambda reports: self._report(opening.run, reports),
        )

    def recommend_once(
        self,
        opening: advisor_service_pb2.RunOpening,
        measurement: advisor_service_pb2.Measurement,
    ) -> advisor_service_pb2.RecommendLRResponse:
        """Return the answer to one measurement, without a stream."""
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
        """Store a profile as a new version; content that is already stored keeps its version.

        Args:
            profile: The profile.
            content: The content, with a complete provenance.
            project: The project.
            request_id: Identifies the request, so that the service recognizes a caller's own retry.
                Default: a new identifier, which the automatic retries of this call share.
        """
        request = profile_service_pb2.RegisterProfileRequest(
            name=profile_name(profile, project), content=content, request_id=request_id or _new_id()
        )
        return self._call(self._profiles.RegisterProfile, request)

    def get_profile(
        self, profile: str, *, project: str = DEFAULT_PROJECT
    ) -> profile_service_pb2.GetProfileResponse:
        """Return one version with its content, and the profile's versions and aliases.

        Args:
            profile: The profile: its latest version, or with a suffix a version (``char-gpt@3``) or
                an alias (``char-gpt@prod``).
            project: The project.
        """
        request = profile_service_pb2.GetProfileRequest(name=profile_name(profile, project))
        return self._call(self._profiles.GetProfile, request)

    def list_profiles(
        self, *, project: str = DEFAULT_PROJECT, label_filter: str = ""
    ) -> Iterator[profile_pb2.Profile]:
        """Iterate over the latest versions of a project's profiles, without their points.

        Args:
            project: The project.
            label_filter: ``labels.KEY=VALUE``; several are joined by ``" AND "``.
        """
        request = profile_service_pb2.ListProfilesRequest(
            parent=project_name(project), filter=label_filter
        )
        for page in pages_by_token(lambda r: self._call(self._profiles.ListProfiles, r), request):
            yield from page.profiles

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
        """Point an alias at a version.

        Args:
            profile: The version, such as ``char-gpt@3``.
            alias: The alias, such as ``prod``.
            expected_version: The version that the alias must name now; 0: the alias must not exist;
                None: not checked.
            etag: The etag that the alias must still have; empty: not checked.
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
        """Delete an alias; the version that it names stays.

        Args:
            profile: The profile, without a suffix.
            alias: The alias.
            etag: The etag that the alias must still have; empty: not checked.
            project: The project.
            request_id: As in :meth:`register_profile`.
        """
        request = profile_service_pb2.DeleteProfileAliasRequest(
            name=profile_name(profile, project),
            alias=alias,
            etag=etag,
            request_id=request_id or _new_id(),
        )
        self._call(self._profiles.DeleteProfileAlias, request)

    def delete_profile(
        self,
        profile: str,
        *,
        all_versions: bool = False,
        project: str = DEFAULT_PROJECT,
        request_id: str = "",
    ) -> None:
        """Delete one version, or a whole profile; no alias may name what is deleted.

        Args:
            profile: The version, such as ``char-gpt@3``; with ``all_versions`` the profile.
            all_versions: Whether to delete all versions.
            project: The project.
            request_id: As in :meth:`register_profile`.
        """
        request = profile_service_pb2.DeleteProfileRequest(
            name=profile_name(profile, project),
            all_versions=all_versions,
            request_id=request_id or _new_id(),
        )
        self._call(self._profiles.DeleteProfile, request)

    def check_layout(
        self,
        profile: str,
        layout: layout_pb2.Layout,
        policy: policy_pb2.Policy | None = None,
        *,
        optimizer: str = "",
        project: str = DEFAULT_PROJECT,
    ) -> profile_service_pb2.ValidateLayoutResponse:
        """Return how a layout maps onto a profile, or why a run with it would be refused.

        Args:
            profile: The profile; a version or an alias may follow, such as ``char-gpt@prod``.
            layout: The layout, such as ``fslr.torch.ModelGroups(...).layout()``.
            policy: The rules to map by; None: the profile's own.
            optimizer: Name of the run's optimizer, which priors depend on; empty: the profile's.
            project: The project.
        """
        request = profile_service_pb2.ValidateLayoutRequest(
            name=profile_name(profile, project), layout=layout, policy=policy, optimizer=optimizer
        )
        return self._call(self._profiles.ValidateLayout, request)

    # Policies

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
            request_id: As in :meth:`register_profile`.
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
            request_id: As in :meth:`register_profile`.
        """
        request = policy_service_pb2.DeletePolicyRequest(
            name=policy_name(policy, project),
            expected_version=expected_version,
            request_id=request_id or _new_id(),
        )
        self._call(self._policies.DeletePolicy, request)

    def list_policies(
        self, *, project: str = DEFAULT_PROJECT
    ) -> Iterator[policy_service_pb2.PolicyVersion]:
        """Iterate over the latest versions of a project's policies."""
        request = policy_service_pb2.ListPoliciesRequest(parent=project_name(project))
        for page in pages_by_token(lambda r: self._call(self._policies.ListPolicies, r), request):
            yield from page.policies

    # Runs

    @property
    def _runs(self) -> run_service_pb2_grpc.RunServiceStub:
        return run_service_pb2_grpc.RunServiceStub(self.channel())

    def list_runs(self, *, project: str = DEFAULT_PROJECT) -> Iterator[run_service_pb2.Run]:
        """Iterate over a project's runs, the most recently started first."""
        request = run_service_pb2.ListRunsRequest(parent=project_name(project))
        for page in pages_by_token(lambda r: self._call(self._runs.ListRuns, r), request):
            yield from page.runs

    def get_run(self, run: str, *, project: str = DEFAULT_PROJECT) -> run_service_pb2.Run:
        """Return one run."""
        request = run_service_pb2.GetRunRequest(name=run_name(run, project))
        return self._call(self._runs.GetRun, request).run

    def delete_run(self, run: str, *, project: str = DEFAULT_PROJECT, request_id: str = "") -> None:
        """Delete a run, its history and metrics; a run that still trains appears again.

        Args:
            run: The run.
            project: The project.
            request_id: As in :meth:`register_profile`.
        """
        request = run_service_pb2.DeleteRunRequest(
            name=run_name(run, project), request_id=request_id or _new_id()
        )
        self._call(self._runs.DeleteRun, request)

    def get_run_history(
        self, run: str, *, project: str = DEFAULT_PROJECT
    ) -> Iterator[run_service_pb2.RunEvent]:
        """Iterate over a run's stored events, the oldest first."""
        request = run_service_pb2.GetRunHistoryRequest(name=run_name(run, project))
        for page in pages_by_event(lambda r: self._call(self._runs.GetRunHistory, r), request):
            yield from page.events

    def report_run_metrics(
        self, run: str, step: int, values: Mapping[str, float], *, project: str = DEFAULT_PROJECT
    ) -> None:
        """Store values of a run's own metrics; of two values for one step the later one counts.

        A training job calls ``report_metrics`` of its attachment instead, which does not wait.

        Args:
            run: The run, which must have measured already.
            step: Optimizer steps completed before the values were measured, >= 0.
            values: The values by the metric's name. A value that is not finite counts as missing.
            project: The project.
        """
        self._report(
            run_name(run, project), [run_service_pb2.MetricReport(step=step, values=values)]
        )

    def _report(self, name: str, reports: Sequence[run_service_pb2.MetricReport]) -> None:
        request = run_service_pb2.ReportRunMetricsRequest(name=name, reports=reports)
        self._call(self._runs.ReportRunMetrics, request)

    def list_run_metrics(
        self, run: str, *, project: str = DEFAULT_PROJECT
    ) -> Iterator[run_service_pb2.MetricReport]:
        """Iterate over a run's stored metrics, in the order in which they were reported."""
        request = run_service_pb2.ListRunMetricsRequest(name=run_name(run, project))
        for page in pages_by_report(lambda r: self._call(self._runs.ListRunMetrics, r), request):
            yield from page.reports

    def watch_run(
        self,
        run: str,
        *,
        after_id: str = "",
        until_end: bool = False,
        project: str = DEFAULT_PROJECT,
    ) -> Iterator[run_service_pb2.RunEvent]:
        """Iterate over a run's events as they arrive, until the caller stops.

        Args:
            run: The run.
            after_id: Yield only events after the one with this id; empty: all stored events first.
            until_end: Whether to stop as well once the run's job has reported that it ended.
            project: The project.

        Yields:
            The events.

        Raises:
            ServiceError: The advisor refused the call, or ended the watch.
        """
        request = run_service_pb2.WatchRunRequest(
            name=run_name(run, project), after_id=after_id, until_end=until_end
        )
        for response in self._watched(request):
            yield response.event

    def watch_run_updates(
        self,
        run: str,
        *,
        after_id: str = "",
        after_metrics_id: str = "",
        project: str = DEFAULT_PROJECT,
    ) -> Iterator[run_service_pb2.WatchRunResponse]:
        """Iterate over a run's events and metrics as they arrive, until the caller stops.

        Args:
            run: The run.
            after_id: Yield only events after the one with this id; empty: all stored events first.
            after_metrics_id: Yield only reports of metrics after the one with this id; empty: all
                stored reports first.
            project: The project.

        Yields:
            Responses that have either ``event`` or ``metrics``.

        Raises:
            ServiceError: The advisor refused the call, or ended the watch.
        """
        yield from self._watched(
            run_service_pb2.WatchRunRequest(
                name=run_name(run, project),
                after_id=after_id,
                include_metrics=True,
                after_metrics_id=after_metrics_id,
            )
        )

    def _watched(
        self, request: run_service_pb2.WatchRunRequest
    ) -> Iterator[run_service_pb2.WatchRunResponse]:
        call = self._runs.WatchRun(request, metadata=self.metadata())
        try:
            yield from call
        except grpc.RpcError as error:
            failure: ServiceError = service_error(error, self.address)
            raise failure from error
        finally:
            call.cancel()

    # Audit and status

    def list_audit_events(
        self, *, project: str = DEFAULT_PROJECT
    ) -> Iterator[audit_service_pb2.AuditEvent]:
        """Iterate over the audit log of a project's writes, the newest first."""
        request = audit_service_pb2.ListAuditEventsRequest(parent=project_name(project))
        for page in pages_by_token(
            lambda r: self._call(
                audit_service_pb2_grpc.AuditServiceStub(self.channel()).ListAuditEvents, r
            ),
            request,
        ):
            yield from page.events

    def status(self) -> status_service_pb2.GetStatusResponse:
        """Return how the answering replica is set up, and whom it takes this client for."""
        stub = status_service_pb2_grpc.StatusServiceStub(self.channel())
        return self._call(stub.GetStatus, status_service_pb2.GetStatusRequest())
