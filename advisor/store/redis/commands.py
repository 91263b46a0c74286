"""Lua scripts and lists of commands, carried out alike whatever stands behind the client."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import AskError, NoScriptError, RedisError, TryAgainError

from advisor.store.redis.clients import Client, Command


class NotReplicatedError(RedisError):
    """A write reached too few replicas in time."""


class Script:
    """A Lua script that servers know by its digest once they have seen it.

    Args:
        redis: The client.
        text: The script.
        writes: Whether its callers are told that what it wrote is kept.
    """

    def __init__(self, redis: Redis, text: str, *, writes: bool) -> None:
        self._client = cast("Client", redis)
        self._writes = writes
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run the script.

        Args:
            keys: Its keys, at least one, all of one project.
            args: Its arguments.
        """
        behind = (len(keys), *keys, *args)
        by_digest, by_text = ("EVALSHA", self.digest, *behind), ("EVAL", self.text, *behind)
        client = self._client
        if self._writes and client.conduct.wait_replicas:
            work = _write(client, keys[0], by_digest, by_text)
            return await client.conduct.carry_out("EVALSHA", work)
        try:
            return await client.execute_command(*by_digest)
        except NoScriptError:
            return await client.execute_command(*by_text)

    def call(self, keys: Sequence[str], args: Sequence[Any]) -> Call:
        """Return a call of the script, for :func:`batch`."""
        return Call(keys[0], (len(keys), *keys, *args), self)


@dataclass(frozen=True, slots=True)
class Call:
    """A command in a list of commands.

    Attributes:
        key: One of its keys.
        arguments: The command; of a script what stands behind its name.
        script: The script.
    """

    key: str
    arguments: tuple[Any, ...]
    script: Script | None = None


def command(name: str, key: str, *arguments: Any) -> Call:
    """Return a command whose first argument is its key, for :func:`batch`."""
    return Call(key, (name, key, *arguments))


async def batch(redis: Redis, calls: Sequence[Call]) -> list[Any]:
    """Carry out commands in one round trip a server, those of one key in their order.

    Args:
        redis: The client.
        calls: The commands.

    Returns:
        A reply or an exception for each.

    Raises:
        RedisError: Nothing of it could be carried out: no server answers.
    """
    client = cast("Client", redis)
    parts = await client.parts([call.key for call in calls])
    done = await asyncio.gather(
        *(_together(client, [calls[i] for i in part]) for part in parts), return_exceptions=True
    )
    results: list[Any] = [None] * len(calls)
    for part, replies in zip(parts, done, strict=True):
        if isinstance(replies, BaseException):
            if not isinstance(replies, RedisError) or all(
                isinstance(other, BaseException) for other in done
            ):
                raise replies
            replies = [replies] * len(part)  # noqa: PLW2901 - one server is away, others are not
        for position, reply in zip(part, replies, strict=True):
            results[position] = reply
    return results


async def _together(client: Client, calls: Sequence[Call]) -> list[Any]:
    """Carry out commands that lie on one server; follow single ones to where their slot moved."""
    known: set[str] = set()
    commands: list[Command] = []
    for call in calls:
        if call.script is None:
            commands.append(call.arguments)
        elif call.script.digest in known:
            commands.append(("EVALSHA", call.script.digest, *call.arguments))
        else:  # its text goes first, so that the server knows it from then on
            known.add(call.script.digest)
            commands.append(("EVAL", call.script.text, *call.arguments))
    work = client.carry_out_together(calls[0].key, commands)
    replies = await client.conduct.carry_out("pipeline", work)
    for position, reply in enumerate(replies):
        if isinstance(reply, (AskError, TryAgainError)):
            call = calls[position]
            if call.script is not None:  # the other server may not know it
                commands[position] = ("EVAL", call.script.text, *call.arguments)
            try:
                replies[position] = await client.follow(reply, commands[position])
            except RedisError as error:
                replies[position] = error
    return replies


async def _write(client: Client, key: str, by_digest: Command, by_text: Command) -> Any:
    """Carry out a script that writes, and wait until enough replicas have what it wrote.

    Args:
        client: The client.
        key: One of the script's keys.
        by_digest: The script's command.
        by_text: The same for a server that does not know the script.

    Returns:
        The script's reply.

    Raises:
        NotReplicatedError: Too few replicas have the write in time. It may last all the same.
        RedisError: The script failed, or Redis does not answer.
    """
    wanted = client.conduct.wait_replicas
    wait = ("WAIT", wanted, round(client.conduct.timeout_s * 500))
    reply, reached = await client.carry_out_together(key, [by_digest, wait])
    if isinstance(reply, NoScriptError):
        reply, reached = await client.carry_out_together(key, [by_text, wait])
    for result in (reply, reached):
        if isinstance(result, Exception):
            raise result
    if reached < wanted:
        raise NotReplicatedError(
            f"{reached} of {wanted} replicas have the write; the same request may be sent again"
        )
    return reply


def load_script(redis: Redis, *names: str) -> Script:
    """Return the Lua script of the given file names, without ``.lua``, one after the other.

    One that begins with ``write`` is a write: it waits for replicas where that is wanted.
    """
    folder = resources.files("advisor.store").joinpath("scripts")
    texts = [folder.joinpath(f"{name}.lua").read_text("utf-8") for name in names]
    return Script(redis, "\n".join(texts), writes=names[0] == "write")
