"""Clients and services that do not know recipes, with those of today."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.rpc import code_pb2, error_details_pb2, status_pb2

from fslr import AdvisorClient, InvalidRequestError, save_layout
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import layout_pb2, policy_pb2
from fslr.errors import ERROR_DOMAIN
from tests.building import content_message, describe_tensors, layout_message, opening_message
from tests.commands import Cli

PACKAGE = "fslr.advisor.v1"
METHOD = f"/{PACKAGE}.AdvisorService/"
ADDED = {
    "Group": {"residual_output"},
    "Policy": {"recipe"},
    "RunOpening": {"recipe", "training_ratios"},
    "RecommendLRResponse": {"recipe", "recipe_factors"},
}


def without_recipes() -> list[Any]:
    """Return the classes of requests and answers before recipes were added to the contract."""
    pool = descriptor_pool.DescriptorPool()
    removed = 0
    for module in (layout_pb2, policy_pb2, pb):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        imports = [name for name in file.dependency if not name.endswith("recipe.proto")]
        file.dependency[:] = imports
        for message in file.message_type:
            added = ADDED.get(message.name, set())
            for field in [field for field in message.field if field.name in added]:
                message.field.remove(field)
                removed += 1
            if message.name == "Group":  # the oneof of the optional field
                message.oneof_decl.pop()
        pool.Add(file)
    assert removed == sum(map(len, ADDED.values()))
    return [
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in ("RecommendLRRequest", "RecommendLRResponse")
    ]


REQUEST, RESPONSE = without_recipes()


def wide_layout(width: int) -> layout_pb2.Layout:
    layout = layout_message()
    describe_tensors(layout, width=width)
    return layout


def test_a_client_that_does_not_know_recipes_is_advised_under_a_recipe(
    client: AdvisorClient, project: str
) -> None:
    content = content_message(policy=policy_pb2.Policy(recipe="mup-adam"))
    content.layout.CopyFrom(wide_layout(8))
    client.register_profile("gpt", content, project=project)
    opening = opening_message(f"projects/{project}/profiles/gpt")
    opening.layout.CopyFrom(wide_layout(32))
    sent = pb.RecommendLRRequest(opening=opening)
    sent.measurement.unit_rates.extend([4.0, 8.0, 12.0, 16.0])
    call = client.channel().unary_unary(
        METHOD + "RecommendLROnce",
        request_serializer=REQUEST.SerializeToString,
        response_deserializer=RESPONSE.FromString,
    )
    answer = call(REQUEST.FromString(sent.SerializeToString()))
    assert list(answer.multipliers) == [0.25] * 4
    assert list(answer.priors) == [0.25] * 4


@pytest.fixture
def older_service() -> Iterator[str]:
    """A service that reads requests without the fields of recipes; its multipliers are 1/2."""

    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        if not request.HasField("measurement"):
            info = error_details_pb2.ErrorInfo(domain=ERROR_DOMAIN, reason="INVALID_VALUE")
            status = status_pb2.Status(
                code=code_pb2.INVALID_ARGUMENT,
                message="measurement: missing; every message carries one",
            )
            status.details.add().Pack(info)
            context.set_trailing_metadata((
                ("grpc-status-details-bin", status.SerializeToString()),
            ))
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, status.message)
        groups = len(request.measurement.unit_rates)
        return RESPONSE(
            profile="projects/default/profiles/gpt@1",
            digest="0" * 64,
            multipliers=[0.5] * groups,
            outcomes=[policy_pb2.OUTCOME_HELD_ZERO_RATE] * groups,
            priors=[0.5] * groups,
            next_measurement_step=request.measurement.step + 25,
        )

    def answers(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        for request in requests:
            yield answer(request, context)

    codec = {
        "request_deserializer": REQUEST.FromString,
        "response_serializer": RESPONSE.SerializeToString,
    }
    handlers = {
        "RecommendLR": grpc.stream_stream_rpc_method_handler(answers, **codec),
        "RecommendLROnce": grpc.unary_unary_rpc_method_handler(answer, **codec),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler(f"{PACKAGE}.AdvisorService", handlers),
    ))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def test_a_service_that_does_not_know_recipes_refuses_an_opening_alone_and_ignores_recipes(
    older_service: str, tmp_path: Path
) -> None:
    opening = opening_message("projects/default/profiles/gpt")
    opening.layout.CopyFrom(wide_layout(32))
    opening.recipe, opening.training_ratios.batch = "mup-adam", 2.0
    opening.layout.groups[1].residual_output = True
    with AdvisorClient(older_service) as client:
        session = client.open_run(opening)
        with pytest.raises(InvalidRequestError, match="measurement: missing; every message") as e:
            session.start()
        assert e.value.reason == "INVALID_VALUE"
        answer = session.recommend(pb.Measurement(unit_rates=[1.0] * 4))
        session.close()
    assert (list(answer.multipliers), answer.recipe) == ([0.5] * 4, "")

    layout = tmp_path / "layout.json"
    save_layout(opening.layout, layout)
    cli = Cli(older_service, "default")
    export = ("export", "gpt", "--layout", str(layout), "--to", "csv")
    assert "head.weight,head.weight,0.5,0.5" in cli.run(*export).stdout
    refused = cli.run(*export, "--recipe", "mup-adam", ok=False)
    assert "the service does not know recipes" in refused.output
