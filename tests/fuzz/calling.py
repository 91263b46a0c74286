"""Sends inputs as they are, through a channel that knows no messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from tests.fuzz.inputs import Input
from tests.fuzz.judging import Answer
from tests.fuzz.methods import Method

DEADLINE_S = 30.0
_WATCH_S = 0.15
_MOST_RESPONSES = 50  # of a watch
_COULD_NOT_WRITE = "Internal error from Core"


class Caller:
    """Calls the methods of a service.

    Args:
        channel: The way to it.
        methods: Its methods.
    """

    def __init__(self, channel: grpc.aio.Channel, methods: list[Method]) -> None:
        self._calls: dict[str, tuple[Method, Any]] = {}
        for method in methods:
            kind = "stream" if method.takes_stream else "unary"
            kind += "_stream" if method.gives_stream else "_unary"
            self._calls[method.short] = method, getattr(channel, kind)(method.path)

    def method(self, short: str) -> Method:
        """Return the method of a name."""
        return self._calls[short][0]

    async def send(self, sent: Input) -> Answer:
        """Send an input, and return how the call ended.

        Messages of a stream go out one behind the other. Where the service ends the call meanwhile,
        grpc.aio has a status of its own for what could not be written; the input is sent again
        then, each message after the answer to the one before.
        """
        answer = await self._sent(sent, in_turn=False)
        if answer.message == _COULD_NOT_WRITE and len(sent.messages) > 1:
            answer = await self._sent(sent, in_turn=True)
        return answer

    async def _sent(self, sent: Input, *, in_turn: bool) -> Answer:
        method, call = self._calls[sent.method]
        watch = method.gives_stream and not method.takes_stream
        answered = asyncio.Semaphore(1 if in_turn else len(sent.messages))
        request: Any = _each(sent.messages, answered) if method.takes_stream else sent.messages[0]
        under_way = call(
            request, timeout=_WATCH_S if watch else DEADLINE_S, metadata=sent.metadata or None
        )
        responses: list[bytes] = []
        cut = watch
        try:
            if method.gives_stream:
                async for response in under_way:
                    responses.append(response)
                    answered.release()
                    if watch and len(responses) == _MOST_RESPONSES:
                        cut = under_way.cancel()
                        break
            else:
                responses.append(await under_way)
        except grpc.aio.AioRpcError:
            pass
        return Answer(
            await under_way.code(),
            await under_way.details() or "",
            tuple(await under_way.trailing_metadata() or ()),
            tuple(responses),
            cut=cut,
        )


async def _each(messages: tuple[bytes, ...], answered: asyncio.Semaphore) -> AsyncIterator[bytes]:
    for message in messages:
        await answered.acquire()
        yield message
