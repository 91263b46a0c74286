"""No name, alias, label, filter or page token gives access to a different project."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import redis
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from advisor.local.server import LocalServer
from advisor.store.redis.embedded import EmbeddedRedis
from fslr import AdvisorClient
from fslr.advisor.v1 import (
    advisor_service_pb2,
    audit_service_pb2,
    policy_pb2,
    policy_service_pb2,
    profile_service_pb2,
    profile_service_pb2_grpc,
    recipe_pb2,
    recipe_service_pb2,
    run_service_pb2,
    status_service_pb2,
)
from tests.building import content_message, opening_message
from tests.waiting import eventually

SECRET = "only-the-victim-knows"
OWN = "projects/attacker/profiles/gpt"
LAYOUT = content_message().layout
# A valid request for every method.
REQUESTS: dict[str, Message] = {
    "AdvisorService/RecommendLROnce": advisor_service_pb2.RecommendLRRequest(
        opening=opening_message(OWN, run="projects/attacker/runs/one"),
        measurement=advisor_service_pb2.Measurement(unit_rates=[1.0] * 4),
    ),
    "AdvisorService/RecommendLR": advisor_service_pb2.RecommendLRRequest(
        opening=opening_message(OWN, run="projects/attacker/runs/one"),
        measurement=advisor_service_pb2.Measurement(unit_rates=[1.0] * 4),
    ),
    "AuditService/ListAuditEvents": audit_service_pb2.ListAuditEventsRequest(
        parent="projects/attacker"
    ),
    "PolicyService/SetPolicy": policy_service_pb2.SetPolicyRequest(
        name="projects/attacker/policies/team", policy=policy_pb2.Policy(slew_limit=3.0)
    ),
    "PolicyService/GetPolicy": policy_service_pb2.GetPolicyRequest(
        name="projects/attacker/policies/team"
    ),
    "PolicyService/ListPolicies": policy_service_pb2.ListPoliciesRequest(
        parent="projects/attacker"
    ),
    "RecipeService/SetRecipe": recipe_service_pb2.SetRecipeRequest(
        name="projects/attacker/recipes/ours",
        recipe=recipe_pb2.Recipe(rows=[recipe_pb2.RecipeRow()]),
    ),
    "RecipeService/GetRecipe": recipe_service_pb2.GetRecipeRequest(
        name="projects/attacker/recipes/ours"
    ),
    "RecipeService/ListRecipes": recipe_service_pb2.ListRecipesRequest(parent="projects/attacker"),
    "RecipeService/ApplyRecipe": recipe_service_pb2.ApplyRecipeRequest(
        name="projects/attacker/recipes/ours", layout=LAYOUT, profile=OWN
    ),
    "ProfileService/RegisterProfile": profile_service_pb2.RegisterProfileRequest(
        name=OWN, content=content_message()
    ),
    "ProfileService/GetProfile": profile_service_pb2.GetProfileRequest(name=f"{OWN}@1"),
    "ProfileService/ListProfiles": profile_service_pb2.ListProfilesRequest(
        parent="projects/attacker"
    ),
    "ProfileService/ValidateLayout": profile_service_pb2.ValidateLayoutRequest(
        name=OWN, layout=LAYOUT
    ),
    "ProfileService/SetProfileAlias": profile_service_pb2.SetProfileAliasRequest(
        name=f"{OWN}@2", alias="prod"
    ),
    "ProfileService/DeleteProfileAlias": profile_service_pb2.DeleteProfileAliasRequest(
        name=OWN, alias="prod"
    ),
    "ProfileService/DeleteProfile": profile_service_pb2.DeleteProfileRequest(name=f"{OWN}@1"),
    "RunService/ListRuns": run_service_pb2.ListRunsRequest(parent="projects/attacker"),
    "RunService/GetRun": run_service_pb2.GetRunRequest(name="projects/attacker/runs/one"),
    "RunService/GetRunHistory": run_service_pb2.GetRunHistoryRequest(
        name="projects/attacker/runs/one"
    ),
    "RunService/ReportRunMetrics": run_service_pb2.ReportRunMetricsRequest(
        name="projects/attacker/runs/one",
        reports=[run_service_pb2.MetricReport(step=1, values={"auc": 0.5})],
    ),
    "RunService/ListRunMetrics": run_service_pb2.ListRunMetricsRequest(
        name="projects/attacker/runs/one"
    ),
    "RunService/WatchRun": run_service_pb2.WatchRunRequest(name="projects/attacker/runs/one"),
    "StatusService/GetStatus": status_service_pb2.GetStatusRequest(),
    "PolicyService/DeletePolicy": policy_service_pb2.DeletePolicyRequest(
        name="projects/attacker/policies/team"
    ),
    "RecipeService/DeleteRecipe": recipe_service_pb2.DeleteRecipeRequest(
        name="projects/attacker/recipes/ours"
    ),
    "RunService/DeleteRun": run_service_pb2.DeleteRunRequest(name="projects/attacker/runs/one"),
}
SHAPES = {"AdvisorService/RecommendLR": "stream_stream", "RunService/WatchRun": "unary_stream"}
# Identifiers with which a user limited to project "attacker" could try to reach "victim".
IDENTIFIERS = [
    *(
        "..",
        ".",
        "*",
        "?",
        "[v]ictim",
        "%2e%2e",
        "",
        " ",
        "a" * 64,
        "VICTIM",
        "víctim",
        "v\u0456ctim",
    ),
    *("x/../../victim", "../victim", "x}:profiles{victim", "{victim}", "}{victim", "x:{victim}"),
    *("victim:profile:gpt", "gpt\x00victim", "gpt\nvictim", "victim ", "gpt@prod@1", "gpt@../1"),
]
NAMES = [
    spelling
    for identifier in IDENTIFIERS
    for spelling in (
        identifier,
        f"projects/{identifier}",
        f"projects/attacker/{identifier}",
        *(f"projects/attacker/{kind}/{identifier}" for kind in ("profiles", "runs", "policies")),
        f"projects/attacker/profiles/gpt@{identifier}",
        *(f"projects/{identifier}/{of}" for of in ("profiles/gpt", "runs/one", "policies/team")),
        f"projects/attacker/profiles/{identifier}/projects/victim/profiles/gpt",
    )
]


@pytest.fixture(scope="module")
def parts(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[AdvisorClient, redis.Redis]]:
    """A service with two projects, and its Redis."""
    with (
        EmbeddedRedis(tmp_path_factory.mktemp("redis")) as store,
        LocalServer(None, "--redis-url", store.url) as service,
        AdvisorClient(service.address) as client,
        redis.Redis.from_url(store.url) as admin,
    ):
        for project in ("victim", "attacker"):
            for rate in (1.0, 2.0):
                content = content_message(rate=rate)
                if project == "victim":
                    content.docs = SECRET
                    content.labels["team"] = SECRET
                client.register_profile("gpt", content, project=project)
            if project == "victim":
                client.register_profile("second", content, project=project)
            client.set_alias("gpt@1", "prod", project=project)
            client.set_policy("team", policy_pb2.Policy(slew_limit=2.0), project=project)
            table = recipe_pb2.Recipe(
                description=SECRET if project == "victim" else "", rows=[recipe_pb2.RecipeRow()]
            )
            client.set_recipe("ours", table, project=project)
            run = client.open_run(
                opening_message(
                    f"projects/{project}/profiles/gpt", run=f"projects/{project}/runs/one"
                )
            )
            run.recommend(advisor_service_pb2.Measurement(unit_rates=[1.0] * 4))
            run.close()
        for project in ("victim", "attacker"):
            eventually(
                lambda: any(r.HasField("end_time") for r in client.list_runs(project=project))  # noqa: B023
            )
        yield client, admin


def stored_outside(admin: redis.Redis, project: str) -> dict[bytes, Any]:
    """Return all stored keys and values that do not belong to the project."""
    prefix = f"fslr:{{{project}}}:".encode()
    keys: Any = admin.keys("*")
    return {key: admin.dump(key) for key in keys if not key.startswith(prefix)}


def ask(client: AdvisorClient, path: str, request: Message) -> bytes:
    """Return the answer to a request, or the message of an expected error."""
    shape = SHAPES.get(path, "unary_unary")
    method: Any = getattr(client.channel(), shape)(
        f"/fslr.advisor.v1.{path}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=bytes,
    )
    sent = iter([request]) if shape == "stream_stream" else request
    # A watch never ends; it sends the stored events at once.
    timeout_s = 0.2 if shape == "unary_stream" else 5
    received: list[bytes] = []
    try:
        answer = method(sent, timeout=timeout_s)
        received.extend(bytes(part) for part in ([answer] if shape == "unary_unary" else answer))
        return b"".join(received)
    except grpc.RpcError as error:
        allowed = {
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.FAILED_PRECONDITION,
            grpc.StatusCode.ABORTED,
        }
        if shape == "unary_stream":
            allowed.add(grpc.StatusCode.DEADLINE_EXCEEDED)
        code, details = error.code(), error.details()
    assert code in allowed
    return b"".join([*received, str(details).encode()])


def texts(message: Message) -> Iterator[tuple[Message, str]]:
    """Yield the text fields of a request and of its opening."""
    for field in message.DESCRIPTOR.fields:
        if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated:
            yield message, field.name
        elif field.name == "opening":
            yield from texts(getattr(message, field.name))


def test_every_method_has_a_request() -> None:
    methods = {
        f"{service.name}/{method.name}"
        for module in (
            *(advisor_service_pb2, audit_service_pb2, policy_service_pb2),
            *(profile_service_pb2, recipe_service_pb2, run_service_pb2, status_service_pb2),
        )
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert methods == set(REQUESTS)


# Every fourth name still includes each identifier, in two or three spellings.
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("path", REQUESTS)
def test_no_text_field_of_a_request_gives_access_to_a_different_project(
    parts: tuple[AdvisorClient, redis.Redis], path: str, every: int
) -> None:
    client, admin = parts
    before = stored_outside(admin, "attacker")
    assert len(before) > 5
    tried = 0
    for place, (_, field) in enumerate(texts(REQUESTS[path])):
        for name in NAMES[place % every :: every]:
            request = type(REQUESTS[path])()
            request.CopyFrom(REQUESTS[path])
            where, _ = list(texts(request))[place]
            setattr(where, field, name)
            assert SECRET.encode() not in ask(client, path, request)
            tried += 1
    assert tried >= len(NAMES) // every or not REQUESTS[path].ListFields()
    assert stored_outside(admin, "attacker") == before


def test_a_page_token_of_a_different_project_reveals_nothing(
    parts: tuple[AdvisorClient, redis.Redis],
) -> None:
    client, _ = parts
    stub = profile_service_pb2_grpc.ProfileServiceStub(client.channel())
    pages = stub.ListProfiles(
        profile_service_pb2.ListProfilesRequest(
            parent="projects/victim", page_size=1, filter=f"labels.team={SECRET}"
        )
    )
    assert pages.next_page_token
    for text in ("", f"labels.team={SECRET}"):
        answer = stub.ListProfiles(
            profile_service_pb2.ListProfilesRequest(
                parent="projects/attacker", page_token=pages.next_page_token, filter=text
            )
        )
        assert all(found.name.startswith("projects/attacker/") for found in answer.profiles)
        assert SECRET not in str(answer)
