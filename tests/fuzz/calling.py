"""Sends inputs unchanged, through a channel without message types."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc

from tests.fuzz.inputs import Input
from tests.fuzz.judging import Answer

DEADLINE_S = 60.0
_WATCH_S = 0.15
_REFUSAL_S = 0.2
_MAX_RESPONSES = 50  # of a watch call
_COULD_NOT_WRITE = "Internal error from Core"


async def send(channel: grpc.aio.Channel, sent: Input) -> Answer:
    """Send an input and return how the call ended.

    The messages of a stream are written without waiting. If the service ends the call meanwhile,
    grpc.aio reports its own status for the messages that it could not write. The input is then
    sent again, and each message waits for the answer to the previous one.
    """
    method = sent.method
    kind = "stream" if method.takes_stream else "unary"
    kind += "_stream" if method.gives_stream else "_unary"
    call = getattr(channel, kind)(method.path)
    metadata = sent.metadata or None
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
    if in_turn:  # by then, a call that is refused before its first message has ended
        await asyncio.sleep(_REFUSAL_S)
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
        while len(responses) < _MAX_RESPONSES and await _read(under_way, responses):
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
