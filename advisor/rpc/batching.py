"""Measurements that wait at the same time are answered in one go.

Under load many streams have a message ready in the same turn of the event loop. What numpy does for
one measurement of a hundred groups takes it hardly longer for thirty of them: most of the time goes
to the calls, not to the numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from advisor.wire import Answer, RecommendationRequest, answers


class Batcher:
    """Collects measurements for one turn of the event loop, and answers them.

    Args:
        counted: Is told of the answers of each go.
    """

    def __init__(
        self, counted: Callable[[list[tuple[RecommendationRequest, Answer]]], None]
    ) -> None:
        self._counted = counted
        self._waiting: dict[
            tuple[int, ...], list[tuple[RecommendationRequest, asyncio.Future[Answer]]]
        ] = {}

    async def answer(self, ask: RecommendationRequest) -> Answer:
        """Return the answer to a measurement.

        Raises:
            InvalidValueError: The measurement is out of range; the field's path begins at
                ``measurement``.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._answer_all)
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.setdefault(ask.advice.plan, []).append((ask, future))
        return await future

    def _answer_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for some in waiting.values():
            asks = [ask for ask, _ in some]
            given = []
            for (ask, future), answered in zip(some, answers(asks), strict=True):
                if isinstance(answered, Answer):
                    given.append((ask, answered))
                if future.done():  # its caller is gone
                    continue
                if isinstance(answered, Answer):
                    future.set_result(answered)
                else:
                    future.set_exception(answered)
            self._counted(given)
