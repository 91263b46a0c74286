"""One phase: a deployment, its clients, faults, and the final state of the registry."""

from __future__ import annotations

import contextlib
import faulthandler
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fslr import AdvisorClient, NotFoundError, ServiceError
from fslr.resource_names import DEFAULT_PROJECT
from tests.chaos import values
from tests.chaos.clients import ClientPool
from tests.chaos.deployment import Services, Store
from tests.chaos.history import Recorder, Values
from tests.chaos.nemesis import Nemesis
from tests.chaos.recording import carry_out

DEADLINE_S = 2.5
_SLACK_S = 0.75  # for pauses of the machine itself
_RECOVERY_S = 1.5  # after the last fault, so that its recovery is measured
_READ_TIMEOUT_S = 30.0
_PAUSE_S = 0.04  # mean pause of a client between two operations
_JOB_STOP_S = 15.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of a phase.

    Attributes:
        name: The name of the phase.
        seconds: How long faults are injected.
        seed: Seed of all random choices.
        folder: The folder for its files.
        projects: The projects, each with its own clients; only the first has a training job.
    """

    name: str
    seconds: float
    seed: int
    folder: Path
    projects: tuple[str, ...] = (DEFAULT_PROJECT,)

    def history(self, project: str) -> Path:
        """Return the file of a project's history; only that of the first one has the faults."""
        return self.folder / f"history-{project}.jsonl"


def run(plan: Plan, store: Store) -> list[str]:
    """Run a phase, and return the log lines that report defects; the rest is in the history.

    Args:
        plan: Its parameters.
        store: Redis, not started yet.
    """
    recorders = {project: Recorder(plan.history(project), "main") for project in plan.projects}
    for recorder in recorders.values():
        recorder.note(
            "plan", phase=plan.name, deadline_s=DEADLINE_S, slack_s=_SLACK_S, seed=plan.seed
        )
    with store, Services(store, plan.folder) as services:
        for project, recorder in recorders.items():
            _prepare(services, project, recorder)
        _inject_faults(plan, store, services, recorders)
        for recorder in recorders.values():
            recorder.note("end")
        store.restart()
        for project, recorder in recorders.items():
            recorder.note("final", **_read_all(services, project))
        for replica in services.replicas:
            replica.stop()
        defects = services.defects()
    for recorder in recorders.values():
        recorder.close()
    return defects


def _prepare(services: Services, project: str, recorder: Recorder) -> None:
    """Create the initial state: content 0 of each profile with its aliases, and the policy."""
    with AdvisorClient(services.address, deadline_s=10, actor="setup") as client:

        def write(kind: str, request: Values, call: object) -> None:
            assert callable(call)
            request_id = f"setup-{kind}-{'-'.join(map(str, request.values()))}"
            request = {**request, "request_id": request_id}
            if carry_out(recorder, kind, request, lambda: call(request_id)) is None:
                raise AssertionError(f"{kind} {request} failed before the first fault")

        def set_policy(request_id: str) -> Values:
            made = client.set_policy(
                values.POLICY, values.rules(0), project=project, request_id=request_id
            )
            return {"version": made.policy.version, "created": made.created}

        policy = {"policy": values.POLICY, "number": 0, "expected_version": None}
        write("set_policy", policy, set_policy)
        for profile in values.PROFILES:

            def register(request_id: str, profile: str = profile) -> Values:
                content = values.content(profile, 0, project)
                made = client.register_profile(
                    profile, content, project=project, request_id=request_id
                ).profile
                return {"version": made.version, "digest": made.digest, "created": True}

            write("register", {"profile": profile, "number": 0}, register)
            for alias in values.ALIASES:

                def move(request_id: str, profile: str = profile, alias: str = alias) -> Values:
                    moved = client.set_alias(
                        f"{profile}@1", alias, project=project, request_id=request_id
                    )
                    return {"version": 1, "previous": 0, "moves": int(moved.alias.etag)}

                request = {"profile": profile, "alias": alias, "version": 1}
                write("set_alias", {**request, "expected_version": None, "etag": ""}, move)


def _inject_faults(
    plan: Plan, store: Store, services: Services, recorders: Mapping[str, Recorder]
) -> None:
    """Let clients work while faults are injected, and for a moment after the last fault."""
    pools = {
        project: ClientPool(
            services.address,
            project,
            recorder,
            deadline_s=DEADLINE_S,
            seed=plan.seed,
            pause_s=_PAUSE_S * len(recorders),  # the same total load
        )
        for project, recorder in recorders.items()
    }
    first = recorders[plan.projects[0]]
    nemeses = [
        Nemesis("store", store.faults(), first, seed=plan.seed, pause_s=(0.2, 0.8)),
        Nemesis("services", services.faults(), first, seed=plan.seed, pause_s=(0.2, 0.8)),
    ]
    with _training(plan, services, first):
        for pool in pools.values():
            pool.start()
        for nemesis in nemeses:
            nemesis.start()
        time.sleep(plan.seconds)
        for nemesis in nemeses:
            nemesis.stop()
        time.sleep(_RECOVERY_S)
        for project, pool in pools.items():
            hung = pool.stop()
            for name in hung:
                recorders[project].note("hung", job=name)
            if hung:  # keep the stacks of the threads that wait
                with (plan.folder / "hung.txt").open("w", encoding="utf-8") as file:
                    faulthandler.dump_traceback(file)


@contextlib.contextmanager
def _training(plan: Plan, services: Services, recorder: Recorder) -> Iterator[None]:
    """Run a training job while the context is open."""
    name = "training"
    project = plan.projects[0]
    arguments = (plan.history(project), services.address, project, DEADLINE_S, name)
    job = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.training_job", *map(str, arguments)],
        stdin=subprocess.PIPE,
    )
    try:
        yield
    finally:
        try:
            job.communicate(timeout=_JOB_STOP_S)
        except subprocess.TimeoutExpired:
            job.kill()
            job.wait()
            recorder.note("hung", job=name)
        if job.returncode:
            recorder.note("broken", client=name, error=f"ended with status {job.returncode}")


def _read_all(services: Services, project: str) -> Values:
    """Return all contents of a project as the service returns them."""
    deadline = time.monotonic() + _READ_TIMEOUT_S
    while True:
        try:
            with AdvisorClient(services.replicas[0].address, deadline_s=10) as client:
                return _contents(client, project)
        except ServiceError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _contents(client: AdvisorClient, project: str) -> Values:
    profiles: Values = {}
    for profile in values.PROFILES:
        with contextlib.suppress(NotFoundError):  # it has no version, or all are lost
            profiles[profile] = _profile(client, project, profile)
    audit = [
        {
            "request_id": event.request_id,
            "action": event.action,
            "name": event.name,
            "detail": "" if event.action == "set policy" else event.detail,
        }
        for event in client.list_audit_events(project=project)
    ]
    policies = {values.POLICY: _rules(client, project)}
    return {"profiles": profiles, "policies": policies, "audit": audit[::-1]}


def _profile(client: AdvisorClient, project: str, profile: str) -> Values:
    found = client.get_profile(profile, project=project)
    versions = {}
    for version in found.versions:
        each = client.get_profile(f"{profile}@{version}", project=project).profile
        number = values.number_of(each.content.points[0].unit_rates[0])
        versions[version] = (each.digest, round(number))
    aliases = {alias.name: (alias.version, int(alias.etag)) for alias in found.aliases}
    return {"versions": versions, "aliases": aliases}


def _rules(client: AdvisorClient, project: str) -> Values:
    """Return the number of each version of the policy."""
    rules: Values = {}
    with contextlib.suppress(NotFoundError):
        latest = client.get_policy(values.POLICY, project=project).version
        for version in range(1, latest + 1):
            stored = client.get_policy(f"{values.POLICY}@{version}", project=project).policy
            rules[str(version)] = round(values.policy_number(stored))
    return rules
