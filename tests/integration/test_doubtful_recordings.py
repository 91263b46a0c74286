"""Doubtful recordings: what registration, the command line and runs say of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from advisor.local.in_process import InProcessAdvisor
from fslr import AdvisorClient, save_profile
from fslr.advisor.v1 import advisor_service_pb2 as pb
from fslr.advisor.v1 import profile_pb2
from tests.building import NAMES, content_message, opening_message
from tests.commands import Cli

SPIKE = "the unit rates spike at step 10: 4 of 4 groups are 50 times as large"


def spiked_content() -> profile_pb2.ProfileContent:
    content = content_message()
    content.points[1].unit_rates[:] = [50 * rate for rate in content.points[1].unit_rates]
    return content


def recording_warnings(answer: pb.RecommendLRResponse) -> list[str]:
    return [w.message for w in answer.warnings if w.kind == pb.WARNING_KIND_RECORDING]


def measurement(step: int, interval_steps: int) -> pb.Measurement:
    return pb.Measurement(step=step, interval_steps=interval_steps, unit_rates=[1.0] * len(NAMES))


def test_registration_and_reading_warn_of_a_spike_and_lists_do_not(
    client: AdvisorClient, project: str
) -> None:
    client.register_profile("fine", content_message(), project=project)
    registered = client.register_profile("gpt", spiked_content(), project=project).profile
    again = client.register_profile("gpt", spiked_content(), project=project)
    got = client.get_profile("gpt", project=project).profile
    assert len(registered.warnings) == 1
    assert registered.warnings[0].startswith(SPIKE)
    assert (again.created, again.profile) == (False, registered)
    assert (got.warnings, got.digest) == (registered.warnings, registered.digest)
    assert not client.get_profile("fine", project=project).profile.warnings
    assert not any(profile.warnings for profile in client.list_profiles(project=project))


def test_the_first_answer_of_a_run_warns_of_a_doubtful_recording(
    client: AdvisorClient, project: str
) -> None:
    client.register_profile("gpt", spiked_content(), project=project)
    opening = opening_message(f"projects/{project}/profiles/gpt")
    first = client.recommend_once(opening, measurement(0, 0))
    later = client.recommend_once(opening, measurement(10, 10))
    assert [message.partition(SPIKE)[0] for message in recording_warnings(first)] == [
        "the profile is a doubtful reference: "
    ]
    assert recording_warnings(later) == []
    in_process = InProcessAdvisor(spiked_content()).open_run(opening)
    assert recording_warnings(in_process.recommend(measurement(0, 0))) == recording_warnings(first)


def test_the_commands_warn_on_standard_error(cli: Cli, tmp_path: Path) -> None:
    save_profile(spiked_content(), tmp_path / "gpt.yaml")
    other = spiked_content()
    other.points[0].unit_rates[0] = 1.5
    save_profile(other, tmp_path / "other.yaml")
    registered = cli.run("profile", "register", "gpt", str(tmp_path / "gpt.yaml"))
    assert SPIKE not in registered.stdout
    assert f"warning: {SPIKE}" in registered.stderr
    assert SPIKE in " ".join(cli.run("profile", "show", "gpt").stdout.split())
    merged = cli.run(
        *("profile", "merge", str(tmp_path / "gpt.yaml"), str(tmp_path / "other.yaml")),
        *("-o", str(tmp_path / "merged.yaml")),
    )
    assert f"warning: {tmp_path / 'other.yaml'}: {SPIKE}" in merged.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": (5,)}, "only step 5 of 100 is recorded"),
        ({"steps": (0, 5)}, "the last recorded step is 5 of 100 planned ones"),
        ({"rate": 0.0}, "4 of 4 groups never moved"),
    ],
)
def test_incomplete_recordings_are_registered_with_a_warning(
    client: AdvisorClient, project: str, change: dict[str, object], message: str
) -> None:
    content = content_message(**change)  # type: ignore[arg-type]
    content.total_steps = 100
    warnings = client.register_profile("gpt", content, project=project).profile.warnings
    assert message in "\n".join(warnings)
