"""Measurements that wait at the same time are answered in one batch.

Under load many streams have a message ready in the same turn of the event loop. For a hundred
groups, numpy needs hardly longer for thirty measurements than for one: most of the time goes into
the calls, not into the numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from advisor.wire import Answer, RecommendationRequest, answer_batch

_log = structlog.get_logger()


class Batcher:
    """Collects measurements for one turn of the event loop, and answers them.

    Args:
        on_answers: Called with the requests of each batch that were answered, and their answers.
    """

    def __init__(
        self, on_answers: Callable[[list[tuple[RecommendationRequest, Answer]]], None]
    ) -> None:
        self._on_answers = on_answers
        self._waiting: dict[
            tuple[object, ...], list[tuple[RecommendationRequest, asyncio.Future[Answer]]]
        ] = {}
        self._logged_defects: set[type[Exception]] = set()

    async def answer(self, request: RecommendationRequest) -> Answer:
        """Return the answer to a measurement.

        Raises:
            InvalidValueError: The measurement is out of range; the field's path begins at
                ``measurement``.
            LayoutMismatchError: The layout does not map onto the profile.
        """
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._answer_all)
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.setdefault(request.advice.plan, []).append((request, future))
        return await future

    def _answer_all(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for batch in waiting.values():
            requests = [request for request, _ in batch]
            results = answer_batch(requests, on_defect=self._log_defect)
            answered = []
            for (request, future), result in zip(batch, results, strict=True):
                if isinstance(result, Answer):
                    answered.append((request, result))
                if future.done():  # the caller is gone
                    continue
                if isinstance(result, Answer):
                    future.set_result(result)
                else:
                    future.set_exception(result)
            self._on_answers(answered)

    def _log_defect(self, error: Exception) -> None:
        """Log the first defect of each kind: under load there would be thousands a second."""
        if type(error) not in self._logged_defects:
            self._logged_defects.add(type(error))
            _log.error(
                "answering a batch failed; its measurements are answered one by one",
                exc_info=error,
            )
