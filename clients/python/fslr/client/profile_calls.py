"""Calls about profiles: versions, aliases, and how layouts map onto them."""

from __future__ import annotations

from collections.abc import Iterator

from fslr.advisor.v1 import (
    layout_pb2,
    policy_pb2,
    profile_pb2,
    profile_service_pb2,
    profile_service_pb2_grpc,
    recipe_pb2,
)
from fslr.client.channel import Connection
from fslr.client.pagination import pages_by_token
from fslr.client.request_ids import new_request_id
from fslr.resource_names import DEFAULT_PROJECT, profile_name, project_name


class ProfileCalls(Connection):
    """The calls of :class:`.AdvisorClient` about profiles."""

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
            name=profile_name(profile, project),
            content=content,
            request_id=request_id or new_request_id(),
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
            request_id=request_id or new_request_id(),
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
            request_id=request_id or new_request_id(),
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
            request_id=request_id or new_request_id(),
        )
        self._call(self._profiles.DeleteProfile, request)

    def check_layout(
        self,
        profile: str,
        layout: layout_pb2.Layout,
        policy: policy_pb2.Policy | None = None,
        *,
        optimizer: str = "",
        recipe: str = "",
        ratios: recipe_pb2.TrainingRatios | None = None,
        total_steps: int = 0,
        batch_size: int = 0,
        project: str = DEFAULT_PROJECT,
    ) -> profile_service_pb2.ValidateLayoutResponse:
        """Return how a layout maps onto a profile, or why a run with it would be refused.

        Args:
            profile: The profile; a version or an alias may follow, such as ``char-gpt@prod``.
            layout: The layout, such as ``fslr.torch.ModelGroups(...).layout()``.
            policy: The rules to map by; None: the profile's own.
            optimizer: Name of the run's optimizer, which priors depend on; empty: the profile's.
            recipe: A recipe that takes the place of the policy's; empty: the policy's.
            ratios: How much larger the run is in what layouts do not show; None: ``batch`` and
                ``tokens`` follow from batch sizes and steps where both are known, and the others
                are 1.
            total_steps: Planned number of the run's optimizer steps, which recipes may depend on;
                0: unknown.
            batch_size: The run's examples per step, which recipes may depend on; 0: unknown.
            project: The project.
        """
        request = profile_service_pb2.ValidateLayoutRequest(
            name=profile_name(profile, project),
            layout=layout,
            policy=policy,
            optimizer=optimizer,
            recipe=recipe,
            training_ratios=ratios,
            total_steps=total_steps,
            batch_size=batch_size,
        )
        return self._call(self._profiles.ValidateLayout, request)
