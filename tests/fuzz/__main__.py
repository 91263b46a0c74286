"""The command ``python -m tests.fuzz``."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
import time
from pathlib import Path

import grpc

from tests.fuzz import corpus
from tests.fuzz.bearers import Bearers
from tests.fuzz.calling import Caller
from tests.fuzz.campaign import CHANNEL_OPTIONS, Campaign, fuzzed_service
from tests.fuzz.inputs import Input
from tests.fuzz.judging import complaint
from tests.fuzz.methods import all_methods

FOLDER = Path("out/fuzz")


def main() -> int:
    """Run what the command line asks for, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="how many inputs to send")
    parser.add_argument("--seed", type=int, default=0, help="makes them the same again")
    parser.add_argument("--seconds", type=float, default=900.0, help="stop after as many at most")
    parser.add_argument("--replay", type=Path, help="send the input of a file, alone")
    parser.add_argument(
        "--authenticate", action="store_true", help="the service wants tokens, and gets odd ones"
    )
    asked = parser.parse_args()
    if asked.replay:
        return replay(asked.replay, authenticate=asked.authenticate)
    report = Campaign(
        asked.inputs, asked.seed, asked.seconds, FOLDER, authenticate=asked.authenticate
    ).run()
    for method, codes in sorted(report.codes.items()):
        slowest, _ = report.slowest_s.get(method, (0.0, None))
        shown = ", ".join(f"{code} {count}" for code, count in codes.most_common())
        print(f"{method:38} slowest {slowest:6.2f} s   {shown}", file=sys.stderr)
    print(f"slowest of the large inputs {report.heaviest_s:.1f} s", file=sys.stderr)
    for complained in report.complaints:
        print(complained, file=sys.stderr)
    print(json.dumps(report.as_json()))
    return int(report.failed)


def replay(path: Path, *, authenticate: bool) -> int:
    """Send one input to a fresh service, and print what comes back."""
    sent = Input.load(path)
    with fuzzed_service(authenticate=authenticate) as (service, bearers):
        wrong = asyncio.run(_replayed(service.address, bearers, sent))
        print(service.log(), file=sys.stderr)
    return int(bool(wrong))


async def _replayed(address: str, bearers: Bearers | None, sent: Input) -> str:
    async with grpc.aio.insecure_channel(address, CHANNEL_OPTIONS) as channel:
        caller = Caller(channel, all_methods())
        if bearers is not None:  # the token that was shown is none of this service's
            caller = Caller(channel, all_methods(), bearers.right)
            kept = tuple(pair for pair in sent.metadata if pair[0] != "authorization")
            sent = dataclasses.replace(sent, metadata=kept)
        for method, message in corpus.seeding():
            await caller.send(Input(method, "valid", (message.SerializeToString(),)))
        begun = time.monotonic()
        answer = await caller.send(sent)
        seconds = time.monotonic() - begun
    wrong = complaint(sent, caller.method(sent.method), answer)
    print(f"{sent.method}: {answer.code.name} after {seconds:.3f} s: {answer.message}")
    print(wrong or "nothing to complain of")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
