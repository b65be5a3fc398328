# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Deadlines, retries and waits, on a clock of our own."""

from __future__ import annotations

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils.errors import DeadlineError, TransientError
from ansible_collections.dockyard.machine.plugins.module_utils.timing import Clock, Deadline, backoff, poll, retry


class FakeClock(Clock):
    def __init__(self) -> None:
        self.time = 100.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


def failing(times: int, **kwargs: float):
    calls: list[int] = []

    def call() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise TransientError("busy", why=f"try {len(calls)}", **kwargs)
        return "done"

    return call, calls


def test_retry_repeats_until_it_works() -> None:
    clock = FakeClock()
    call, calls = failing(3)
    assert retry(call, phase="x", deadline=Deadline(100, clock)) == "done"
    assert len(calls) == 4
    assert len(clock.slept) == 3


def test_retry_waits_as_long_as_it_was_asked_to() -> None:
    clock = FakeClock()
    call, dummy = failing(1, retry_after=7)
    retry(call, phase="x", deadline=Deadline(100, clock))
    assert 7 <= clock.slept[0] <= 7.5


def test_retry_ends_with_its_attempts() -> None:
    call, calls = failing(99)
    with pytest.raises(TransientError):
        retry(call, phase="x", deadline=Deadline(1000, FakeClock()), attempts=4)
    assert len(calls) == 4


def test_retry_does_not_begin_a_wait_that_outlives_the_deadline() -> None:
    clock = FakeClock()
    call, calls = failing(99, retry_after=60)
    with pytest.raises(DeadlineError) as caught:
        retry(call, phase="create", deadline=Deadline(30, clock))
    assert len(calls) == 1
    assert clock.slept == []
    assert "create" in caught.value.message and "try 1" in caught.value.message


def test_backoff_grows_is_capped_and_jittered() -> None:
    steps = [backoff(attempt) for attempt in range(1, 12)]
    assert all(step <= 20 for step in steps)
    assert 0.25 <= steps[0] <= 0.5
    assert steps[-1] >= 10
    assert len({backoff(5) for dummy in range(20)}) > 1


def test_poll_names_phase_time_and_last_sight() -> None:
    clock = FakeClock()
    with pytest.raises(DeadlineError) as caught:
        poll(lambda: (None, "state starting"), phase="start", deadline=Deadline(10, clock), interval=2, hint="look there")
    assert "'start'" in caught.value.message
    assert "10 s" in caught.value.message
    assert "state starting" in caught.value.message
    assert "look there" in caught.value.message


def test_poll_looks_once_even_when_no_time_is_left() -> None:
    assert poll(lambda: ("here", ""), phase="x", deadline=Deadline(0, FakeClock())) == "here"


def test_an_inner_deadline_never_outlives_the_outer_one() -> None:
    clock = FakeClock()
    outer = Deadline(10, clock)
    clock.time += 4
    assert outer.within(100).remaining() == pytest.approx(6)
    assert outer.within(2).remaining() == pytest.approx(2)
