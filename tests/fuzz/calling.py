"""Sends inputs as they are, through a channel that knows no messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc

from tests.fuzz.inputs import Input, Metadata
from tests.fuzz.judging import Answer
from tests.fuzz.methods import Method

DEADLINE_S = 30.0
_WATCH_S = 0.15
_REFUSED_WITHIN_S = 0.2
_MOST_RESPONSES = 50  # of a watch
_COULD_NOT_WRITE = "Internal error from Core"


class Caller:
    """Calls the methods of a service.

    Args:
        channel: The way to it.
        methods: Its methods.
        shown: Returns what a caller shows with an input, such as a token, beside its metadata.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        methods: list[Method],
        shown: Callable[[Input], Metadata] = lambda _: (),
    ) -> None:
        self._shown = shown
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
        method, call = self._calls[sent.method]
        metadata = (*sent.metadata, *self._shown(sent)) or None
        if method.takes_stream:
            answer = await _streamed(call(timeout=DEADLINE_S, metadata=metadata), sent)
            if answer.message == _COULD_NOT_WRITE:
                under_way = call(timeout=DEADLINE_S, metadata=metadata)
                answer = await _streamed(under_way, sent, in_turn=True)
            return answer
        if method.gives_stream:
            return await _watched(call(sent.messages[0], timeout=_WATCH_S, metadata=metadata))
        under_way = call(sent.messages[0], timeout=DEADLINE_S, metadata=metadata)
        responses = []
        with contextlib.suppress(grpc.aio.AioRpcError):
            responses.append(await under_way)
        return await _answer(under_way, responses)


async def _streamed(under_way: Any, sent: Input, *, in_turn: bool = False) -> Answer:
    responses: list[bytes] = []
    if in_turn:  # a call that is refused whatever it says has ended by then
        await asyncio.sleep(_REFUSED_WITHIN_S)
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for message in sent.messages:
            await under_way.write(message)
            if in_turn and not await _read(under_way, responses):
                break
        await under_way.done_writing()
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await _read(under_way, responses):
            pass
    return await _answer(under_way, responses)


async def _read(under_way: Any, responses: list[bytes]) -> bool:
    response = await under_way.read()
    if response is grpc.aio.EOF:
        return False
    responses.append(response)
    return True


async def _watched(under_way: Any) -> Answer:
    responses: list[bytes] = []
    with contextlib.suppress(grpc.aio.AioRpcError):
        while len(responses) < _MOST_RESPONSES and await _read(under_way, responses):
            pass
        under_way.cancel()
    return await _answer(under_way, responses, cut=True)


async def _answer(under_way: Any, responses: list[bytes], *, cut: bool = False) -> Answer:
    return Answer(
        await under_way.code(),
        await under_way.details() or "",
        tuple(await under_way.trailing_metadata() or ()),
        tuple(responses),
        cut=cut,
    )
