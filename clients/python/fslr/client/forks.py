"""Refuses calls in forked processes where gRPC may wait for ever."""

from __future__ import annotations

import os

from fslr.errors import ServiceError

_VARIABLE = "GRPC_ENABLE_FORK_SUPPORT"
_FALSE = {"0", "f", "false", "n", "no"}  # what gRPC takes for it, in any case

# The processes that opened channels, by id: this one, and those that it was forked from.
_opened_in: set[int] = set()


def check_channel_can_open() -> None:
    """Take note that this process opens a channel.

    Raises:
        ServiceError: Calls may hang: the process was forked from one that has opened a channel,
            and gRPC's support of forks is switched off.
    """
    present = os.getpid()
    given = os.environ.get(_VARIABLE, "")
    if _opened_in - {present} and given.lower() in _FALSE:
        raise ServiceError(
            "this process was forked from one that has called the advisor, and with "
            f"{_VARIABLE}={given} its own calls may never end; unset {_VARIABLE}, or start the "
            'process with the method "spawn"'
        )
    _opened_in.add(present)
