"""Checks at the start that Redis accepts what the service sends later."""

from __future__ import annotations

import re
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import ClusterDownError, MovedError, ResponseError

from advisor.errors import StoreUnavailableError
from advisor.store import keys
from advisor.store.lua import load_script
from advisor.store.redis.clients import Client, ClusterClient
from advisor.store.redis.connection import check, refused, store_errors
from advisor.store.redis.refusals import CLUSTER_NODE

_POSITION = re.compile(r" script: \w+, on @user_script.*", re.DOTALL)


async def check_store(redis: Redis) -> StoreUnavailableError | None:
    """Check that Redis answers, and that it accepts every command of the service.

    Args:
        redis: The client.

    Returns:
        The problem, if Redis answers, reads work and writes do not: its memory is full, or it is a
        replica.

    Raises:
        StoreUnavailableError: Redis does not answer, or is set up so that the service cannot work.
    """
    await check(redis)
    try:
        await _check_commands(redis)
    except StoreUnavailableError as error:
        if error.is_temporary:
            return error
        raise
    return None


async def _check_commands(redis: Redis) -> None:
    client = cast("Client", redis)
    script = load_script(redis, "check_commands")
    probe = keys.start_check()
    with store_errors():
        try:
            # Both forms: a server that has cached the script may still refuse EVAL.
            replies: list[Any] = [
                await client.execute_command("EVAL", script.text, len(probe), *probe),
                await client.execute_command("EVALSHA", script.digest, len(probe), *probe),
            ]
        except (MovedError, ClusterDownError) as error:
            if isinstance(redis, ClusterClient):
                raise
            raise refused(CLUSTER_NODE, str(error)) from error
        for command, reply in zip(replies[0][::2], replies[0][1::2], strict=True):
            text = _POSITION.sub("", reply.decode("utf-8", "replace").removeprefix("ERR "))
            raise ResponseError(f"{text}: {command.decode()}")
