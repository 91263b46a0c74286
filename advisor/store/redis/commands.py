"""Runs Lua scripts and batches of commands, whatever topology the client talks to."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import AskError, NoScriptError, RedisError, TryAgainError

from advisor.store.redis.clients import Client, Command


class ScriptError(StrEnum):
    """First words of the error replies of our scripts."""

    AUDIT_FAILED = "AUDITFAILED"
    """The audit record cannot be written; Redis's reason follows."""

    REQUEST_REUSED = "REQUESTREUSED"
    """The request id belongs to a different request."""

    WRONG_TYPE = "KEYTYPE"
    """A key holds a value of the wrong type; the details follow."""


class NotReplicatedError(RedisError):
    """Too few replicas confirmed a write in time."""


class Script:
    """A Lua script, called by its digest once a server knows it.

    Args:
        redis: The client.
        text: The script's source.
        writes: Whether a call waits for replicas, if the client is configured to.
    """

    def __init__(self, redis: Redis, text: str, *, writes: bool) -> None:
        self._client = cast("Client", redis)
        self._writes = writes
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run the script.

        Args:
            keys: The script's keys, at least one, all of the same project.
            args: The script's arguments.
        """
        behind = (len(keys), *keys, *args)
        by_digest, by_text = ("EVALSHA", self.digest, *behind), ("EVAL", self.text, *behind)
        client = self._client
        if self._writes and client.runner.wait_replicas:
            work = _write_and_wait(client, keys[0], by_digest, by_text)
            return await client.runner.run("EVALSHA", work)
        try:
            return await client.execute_command(*by_digest)
        except NoScriptError:
            return await client.execute_command(*by_text)

    def call(self, keys: Sequence[str], args: Sequence[Any]) -> Call:
        """Return a call of the script for :func:`batch`."""
        return Call(keys[0], (len(keys), *keys, *args), self)


@dataclass(frozen=True, slots=True)
class Call:
    """A command in a batch.

    Attributes:
        key: One of the command's keys.
        arguments: The whole command, or for a script everything after the digest.
        script: The script, if the command calls one.
    """

    key: str
    arguments: tuple[Any, ...]
    script: Script | None = None


def command(name: str, key: str, *arguments: Any) -> Call:
    """Return a command whose first argument is its key, for :func:`batch`."""
    return Call(key, (name, key, *arguments))


async def batch(redis: Redis, calls: Sequence[Call]) -> list[Any]:
    """Run commands in one round trip per server; those on the same server run in order.

    Args:
        redis: The client.
        calls: The commands.

    Returns:
        A reply or an exception for each command.

    Raises:
        RedisError: No server answered, so none of the commands was executed.
    """
    client = cast("Client", redis)
    groups = await client.group_by_node([call.key for call in calls])
    outcomes = await asyncio.gather(
        *(_run_on_one_node(client, [calls[i] for i in group]) for group in groups),
        return_exceptions=True,
    )
    results: list[Any] = [None] * len(calls)
    for group, replies in zip(groups, outcomes, strict=True):
        if isinstance(replies, BaseException):
            if not isinstance(replies, RedisError) or all(
                isinstance(other, BaseException) for other in outcomes
            ):
                raise replies
            replies = [replies] * len(group)  # noqa: PLW2901 - the other servers did answer
        for position, reply in zip(group, replies, strict=True):
            results[position] = reply
    return results


async def _run_on_one_node(client: Client, calls: Sequence[Call]) -> list[Any]:
    """Run commands whose keys are on one node; follow redirections of single commands."""
    sent: set[str] = set()
    commands: list[Command] = []
    for call in calls:
        if call.script is None:
            commands.append(call.arguments)
        elif call.script.digest in sent:
            commands.append(("EVALSHA", call.script.digest, *call.arguments))
        else:  # the first call sends the source, and the server caches it
            sent.add(call.script.digest)
            commands.append(("EVAL", call.script.text, *call.arguments))
    work = client.execute_pipeline(calls[0].key, commands)
    replies = await client.runner.run("pipeline", work)
    for position, reply in enumerate(replies):
        if isinstance(reply, (AskError, TryAgainError)):
            call = calls[position]
            if call.script is not None:  # the other node may not have cached the script
                commands[position] = ("EVAL", call.script.text, *call.arguments)
            try:
                replies[position] = await client.follow_redirect(reply, commands[position])
            except RedisError as error:
                replies[position] = error
    return replies


async def _write_and_wait(client: Client, key: str, by_digest: Command, by_text: Command) -> Any:
    """Run a script that writes, and wait until enough replicas have the write.

    Args:
        client: The client.
        key: One of the script's keys.
        by_digest: The command that calls the script by its digest.
        by_text: The command for a server that does not know the script.

    Returns:
        The script's reply.

    Raises:
        NotReplicatedError: Too few replicas confirmed the write in time. It may persist anyway.
        RedisError: The script failed, or Redis does not answer.
    """
    wanted = client.runner.wait_replicas
    wait = ("WAIT", wanted, round(client.runner.timeout_s * 500))
    reply, reached = await client.execute_pipeline(key, [by_digest, wait])
    if isinstance(reply, NoScriptError):
        reply, reached = await client.execute_pipeline(key, [by_text, wait])
    for result in (reply, reached):
        if isinstance(result, Exception):
            raise result
    if reached < wanted:
        raise NotReplicatedError(
            f"{reached} of {wanted} replicas have the write; retry the same request"
        )
    return reply
