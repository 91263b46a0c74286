"""The client of an advisor service: one method per call."""

from __future__ import annotations

from collections.abc import Iterator

from fslr.advisor.v1 import (
    advisor_service_pb2,
    advisor_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    profile_service_pb2,
    status_service_pb2,
    status_service_pb2_grpc,
)
from fslr.client.pagination import pages_by_token
from fslr.client.policy_calls import PolicyCalls
from fslr.client.profile_calls import ProfileCalls
from fslr.client.recipe_calls import RecipeCalls
from fslr.client.run_calls import RunCalls
from fslr.client.stream import StreamSession
from fslr.resource_names import DEFAULT_PROJECT, project_name


class AdvisorClient(ProfileCalls, PolicyCalls, RecipeCalls, RunCalls):
    """A client of one advisor service.

    Profiles, policies and runs are given as identifiers within ``project``, or as whole resource
    names such as ``projects/nlp/profiles/char-gpt``.

    The channel opens at the first call, and opens anew in a forked process: creating a client
    before data loader workers are forked is safe. With ``GRPC_ENABLE_FORK_SUPPORT=0``, calls in a
    process that is forked after the first call raise :class:`ServiceError`, since they may hang.

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

    def validate_layout(
        self, opening: advisor_service_pb2.RunOpening
    ) -> profile_service_pb2.ValidateLayoutResponse:
        """Return how a run's layout maps onto its profile, or why the run would be refused."""
        return self.check_layout(
            opening.profile,
            opening.layout,
            opening.policy if opening.HasField("policy") else None,
            optimizer=opening.optimizer,
            recipe=opening.recipe,
            ratios=opening.training_ratios if opening.HasField("training_ratios") else None,
            total_steps=opening.total_steps,
            batch_size=opening.batch_size,
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
        measurement: advisor_service_pb2.Measurement | None = None,
    ) -> advisor_service_pb2.RecommendLRResponse:
        """Return the answer to one measurement, without a stream.

        Args:
            opening: The run's opening.
            measurement: The measurement; None: what is known before the first step, which is
                priors and the factors of a recipe.
        """
        stub = advisor_service_pb2_grpc.AdvisorServiceStub(self.channel())
        request = advisor_service_pb2.RecommendLRRequest(opening=opening, measurement=measurement)
        return self._call(stub.RecommendLROnce, request)

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
