"""Presses that wait for the thread that runs all models: when it is free, those that wait are stepped as one batch."""

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from genie.play.messages import Press, Steer
from genie.play.session import Session, press_together

# Largest batch on a CPU: a larger one is hardly cheaper per frame, and delays those who wait for the next.
MAX_BATCH = 16
# Share of a batch's time for which the next one waits for the clients that were just answered, who usually press again
# at once. Without it, clients fall into groups that take turns, and batches are smaller.
GATHERING = 0.1


class Waiting(NamedTuple):
    """A press that is not answered yet."""

    session: Session
    message: Press | Steer
    answer: asyncio.Future[bytes]


class PressQueue:
    """Answers presses in the order in which they come, many at once.

    Batches alternate with the other work of the thread, which waits for one batch at most.

    Args:
        thread: executor of the one thread that runs all models.
        max_batch: largest number of presses in a batch.
        num_threads: threads that step the dreams of a batch.
    """

    def __init__(self, thread: ThreadPoolExecutor, max_batch: int, num_threads: int):
        self._thread, self._max_batch, self._num_threads = thread, max_batch, num_threads
        self._waiting: deque[Waiting] = deque()
        self._came = asyncio.Event()
        self._answering: asyncio.Task | None = None

    async def answer(self, session: Session, message: Press | Steer) -> bytes:
        """The reply to a press, as `Session.answer`; a session may wait for one at a time.

        Raises:
            MessageError, WorldError: as `Session.answer`.
        """
        waiting = Waiting(session, message, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._came.set()
        if self._answering is None:
            self._answering = asyncio.create_task(self._answer_all())
        return await waiting.answer

    async def _answer_all(self) -> None:
        """Answers batch after batch until no press waits."""
        while self._waiting:
            step_batch = asyncio.get_running_loop().run_in_executor(self._thread, self._step_batch)
            replies, seconds = await step_batch
            for answer, reply in replies:
                if answer.done():  # cancelled, with the client
                    continue
                if isinstance(reply, Exception):
                    answer.set_exception(reply)
                else:
                    answer.set_result(reply)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._gather(len(self._waiting) + len(replies)), GATHERING * seconds)
        self._answering = None

    async def _gather(self, num_wanted: int) -> None:
        """Waits until some number of presses wait, or a full batch."""
        while len(self._waiting) < min(num_wanted, self._max_batch):
            self._came.clear()
            await self._came.wait()

    def _step_batch(self) -> tuple[list[tuple[asyncio.Future[bytes], bytes | Exception]], float]:
        """Steps the presses that have waited longest; returns the reply to each, and the seconds taken."""
        # Taken here, when the thread is free, not when the batch was queued: presses may have come in the meantime.
        start = time.perf_counter()
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch))]
        try:
            sessions, messages = [waiting.session for waiting in batch], [waiting.message for waiting in batch]
            replies = press_together(sessions, messages, self._num_threads)
        except Exception as fault:
            replies = [fault] * len(batch)
        answers = [(waiting.answer, reply) for waiting, reply in zip(batch, replies, strict=True)]
        return answers, time.perf_counter() - start
