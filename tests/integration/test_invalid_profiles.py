"""Invalid profiles and names are refused, with the path of the field."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fslr import AdvisorClient, InvalidRequestError
from fslr.advisor.v1 import profile_pb2
from tests.building import content_message


def _insert_nan(content: profile_pb2.ProfileContent) -> None:
    content.points[1].unit_rates[2] = float("nan")


def _insert_negative(content: profile_pb2.ProfileContent) -> None:
    content.points[0].unit_rates[0] = -1.0


def _drop_a_rate(content: profile_pb2.ProfileContent) -> None:
    del content.points[2].unit_rates[3]


def _insert_one_error(content: profile_pb2.ProfileContent) -> None:
    content.points[0].relative_errors.append(0.1)


def _send_rms_in_one_point(content: profile_pb2.ProfileContent) -> None:
    content.points[1].weight_rms.extend([0.1] * 4)


def _insert_infinite_rms(content: profile_pb2.ProfileContent) -> None:
    for point in content.points:
        point.update_rms.extend([0.1, 0.1, float("inf"), 0.1])


def _repeat_a_step(content: profile_pb2.ProfileContent) -> None:
    content.points[1].step = 0


def _exceed_steps(content: profile_pb2.ProfileContent) -> None:
    content.points[2].step = 2**63 - 1


def _drop_points(content: profile_pb2.ProfileContent) -> None:
    content.ClearField("points")


def _drop_layout(content: profile_pb2.ProfileContent) -> None:
    content.ClearField("layout")


def _insert_infinite_rate(content: profile_pb2.ProfileContent) -> None:
    content.base_learning_rate = float("inf")


def _insert_bad_bound(content: profile_pb2.ProfileContent) -> None:
    content.policy.max_multiplier = -1.0


def _insert_unknown_rule(content: profile_pb2.ProfileContent) -> None:
    content.policy.depth_rule = 77  # type: ignore[assignment]


def _insert_bad_label(content: profile_pb2.ProfileContent) -> None:
    content.labels["Not A Key"] = "x"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            _insert_nan,
            r"content\.points\[1\]\.unit_rates\[2\]: nan of group 'blocks\.1\.up\.weight'",
        ),
        (_insert_negative, r"content\.points\[0\]\.unit_rates\[0\]: -1\.0 of group"),
        (_drop_a_rate, r"content\.points\[2\]\.unit_rates: 3 entries, but the layout has 4 groups"),
        (_insert_one_error, r"content\.points\[0\]\.relative_errors: 1 entry, but"),
        (
            _send_rms_in_one_point,
            r"content\.points\[1\]\.weight_rms: 4 entries; give one for each group in every point",
        ),
        (
            _insert_infinite_rms,
            r"content\.points\[0\]\.update_rms\[2\]: inf of group 'blocks\.1\.up\.weight' is not",
        ),
        (_repeat_a_step, r"content\.points\[1\]\.step: 0 is not above 0"),
        (_exceed_steps, r"content\.points\[2\]\.step: 9223372036854775807 is not in \[0, "),
        (_drop_points, r"content\.points: 0 points"),
        (_drop_layout, r"content\.layout\.groups: the layout has no group"),
        (_insert_infinite_rate, r"content\.base_learning_rate: inf is not a finite number"),
        (_insert_bad_bound, r"content\.policy\.max_multiplier: -1\.0 is not a finite number"),
        (_insert_unknown_rule, r"content\.policy\.depth_rule: 77 is not a known value"),
        (_insert_bad_label, r"content\.labels: the key 'Not A Key' is not"),
    ],
)
def test_an_invalid_profile_is_refused_with_the_path_of_the_field(
    client: AdvisorClient,
    project: str,
    damage: Callable[[profile_pb2.ProfileContent], None],
    message: str,
) -> None:
    content = content_message()
    damage(content)
    with pytest.raises(InvalidRequestError, match=message):
        client.register_profile("gpt", content, project=project)
    assert list(client.list_profiles(project=project)) == []


@pytest.mark.parametrize(
    "name", ["UPPER", "a/b", "x@1", "", "ä", "x" * 64, "..", "{x}", "a:b", "x" * 20_000]
)
def test_an_invalid_name_is_refused(client: AdvisorClient, project: str, name: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^name: "):
        client.register_profile(name, content_message(), project=project)
