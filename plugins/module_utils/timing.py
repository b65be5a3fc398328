# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deadlines, retries and waits. Nothing else in the collection sleeps."""

from __future__ import annotations

import random
import time
import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils.errors import DeadlineError, TransientError

T = t.TypeVar("T")

# Jitter needs no secrecy, only independence between the machines of one batch.
_random = random.Random()


class Clock:
    """The time source; tests give their own."""

    def now(self) -> float:
        """Seconds on a clock that never jumps."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class Deadline:
    """An amount of time that is used up.

    Args:
        seconds: how long; a deadline made with ``within`` never outlives its parent.
        clock: the time source.
    """

    def __init__(self, seconds: float, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.started = self.clock.now()
        self.ends = self.started + seconds

    def within(self, seconds: float) -> Deadline:
        """A shorter deadline inside this one."""
        return Deadline(min(seconds, self.remaining()), self.clock)

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.ends - self.clock.now())

    def elapsed(self) -> float:
        """Seconds since it began."""
        return self.clock.now() - self.started

    @property
    def over(self) -> bool:
        """True when the time is used up."""
        return self.remaining() <= 0

    def sleep(self, seconds: float) -> None:
        """Wait, but not past the end."""
        self.clock.sleep(min(seconds, self.remaining()))


def backoff(attempt: int, *, base: float = 0.5, cap: float = 20.0) -> float:
    """Seconds to wait before the next try: exponential with full jitter above half of the step.

    Args:
        attempt: number of failed tries so far, from 1.
        base: the first step in seconds.
        cap: the longest step in seconds.
    """
    step: float = min(cap, base * 2.0 ** (attempt - 1))
    return step / 2 + _random.uniform(0, step / 2)


def retry(call: t.Callable[[], T], *, phase: str, deadline: Deadline, attempts: int = 8) -> T:
    """Repeat an idempotent call while it raises ``TransientError``.

    A server's ``retry_after`` is honoured as far as the deadline allows.

    Raises:
        TransientError: the last one, when ``attempts`` are used up.
        DeadlineError: when the time is.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return call()
        except TransientError as error:
            if attempt >= attempts:
                raise
            pause = backoff(attempt) if error.retry_after is None else error.retry_after + _random.uniform(0, 0.5)
            if pause >= deadline.remaining():
                raise DeadlineError(phase, deadline.elapsed(), error.message, where=error.where, hint=error.hint) from error
            deadline.sleep(pause)


def poll(
    look: t.Callable[[], tuple[T | None, str]],
    *,
    phase: str,
    deadline: Deadline,
    interval: float = 1.0,
    where: str = "",
    hint: str = "",
) -> T:
    """Look again and again until there is an answer.

    Args:
        look: returns ``(answer, seen)``; ``answer`` None means "not yet", ``seen`` says what was there instead.
        phase: what is waited for, as the error shall name it.
        deadline: when to give up.
        interval: seconds between two looks; jittered so that a batch of machines spreads.
        where: the machine or host that is waited for.
        hint: what a person can do when the wait fails.

    Raises:
        DeadlineError: with the phase, the elapsed time and the last thing seen.
    """
    while True:
        answer, seen = look()
        if answer is not None:
            return answer
        if deadline.over:
            raise DeadlineError(phase, deadline.elapsed(), seen, where=where, hint=hint)
        deadline.sleep(interval * _random.uniform(0.8, 1.2))
