"""Questions that wait for an answer: the way back that each gets of its own, and what becomes of it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from nexus._event import Event
from nexus.errors import LinkDown, QueueFull, ReplyTimeout

__all__ = ["Requests"]


class Requests:
    """Finds the question that an event answers.

    A question goes with a word of its own on its way back; what comes back under that word is its answer,
    whatever the ids are.

    Args:
        name: of what asks, for errors; words of the way back begin with it.
        most: questions that may wait at a time.
    """

    def __init__(self, name: str, most: int) -> None:
        self.late = 0
        """Answers that came when nobody waited any more."""
        self._name = name
        self._most = most
        self._waiting: dict[str, asyncio.Future[Event[Any]]] = {}

    @property
    def is_asking(self) -> bool:
        """Whether any question waits for its answer."""
        return bool(self._waiting)

    async def ask(
        self, event: Event[Any], timeout: float | None, send: Callable[[Event[Any]], Awaitable[None]]
    ) -> Event[Any]:
        """Send a question, and wait for its answer. Cancelled, the question is forgotten.

        Args:
            timeout: seconds, sending included; after them nobody handles the question any more. None for no
                limit.

        Raises:
            ReplyTimeout: there was no answer in time.
            QueueFull: too many questions wait.
            LinkDown: the connection was stopped.
        """
        if len(self._waiting) >= self._most:
            raise QueueFull(f"{self._name}: {self._most} requests wait for an answer already")
        loop = asyncio.get_running_loop()
        way = f"{self._name}?{secrets.token_hex(8)}"
        deadline = event.deadline
        if timeout is not None:
            latest = loop.time() + timeout
            deadline = latest if deadline is None else min(deadline, latest)
        question = event.evolve(reply_to=(*event.reply_to, way), deadline=deadline)
        waiter: asyncio.Future[Event[Any]] = loop.create_future()
        self._waiting[way] = waiter
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                await send(question)
                return await waiter
        except TimeoutError as exc:
            if not limit.expired():
                raise
            raise ReplyTimeout(
                f"{self._name}: no answer to event {event.id} of type {event.type!r} within {timeout} s"
            ) from exc
        finally:
            del self._waiting[way]
            waiter.cancel()

    def answer(self, event: Event[Any]) -> bool:
        """Give an answer to whoever waits for it; False if the event is none. A late one is counted."""
        route = event.route
        if not route or not route[-1].startswith(f"{self._name}?"):
            return False
        waiter = self._waiting.get(route[-1])
        if waiter is None or waiter.done():
            self.late += 1
        else:
            waiter.set_result(event.evolve(route=route[:-1]))
        return True

    def close(self) -> None:
        """Let all that wait fail: there will be no answer."""
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(LinkDown(f"{self._name} was stopped"))
