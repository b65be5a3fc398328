# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run make targets one after the other, each with a heading, a log, a time and a deadline; then say how it went.

``stages.py [--behind TARGET:NEEDED_BY] TARGET[:MINUTES]...``

Every target runs, also after a failure. A target given with ``--behind`` runs at low priority beside the others from the start
(a download or an image that a later target needs) and is waited for before the first target that needs it. A stage counts as one test;
where its log holds summaries as pytest writes them, those count instead. The last line is ``N passed, N failed``, which also
stands in ``.build/logs/result``; the exit code is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import typing as t

LOGS = pathlib.Path(".build/logs")
MINUTES = 15.0
TAIL = 80

_COUNT = r"\d+ (?:passed|failed|skipped|errors?|xfailed|xpassed|deselected|warnings?|rerun)"
_SUMMARY = re.compile(rf"^(?:=+ )?({_COUNT}(?:, {_COUNT})*)(?: in [\d.]+s.*)?$", re.MULTILINE)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclasses.dataclass
class Stage:
    """One make target under way or done. ``returncode`` is None until it ended; ``seconds`` is its wall time."""

    target: str
    minutes: float = MINUTES
    returncode: int | None = None
    seconds: float = 0.0
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    _process: subprocess.Popen[bytes] | None = None
    _started: float = 0.0

    @property
    def log(self) -> pathlib.Path:
        return LOGS / f"{self.target}.log"

    def start(self, nice: int = 0) -> None:
        """Start the target in a session of its own, so that a deadline can end all that it started."""
        argv = ["nice", "-n", str(nice), "make", "--no-print-directory", self.target]
        self._started = time.monotonic()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def wait(self) -> None:
        """Wait until the target ends or its deadline passes, with a sign of life every minute."""
        process = self._process
        if process is None or self.returncode is not None:
            return
        end = self._started + self.minutes * 60
        while self.returncode is None:
            left = end - time.monotonic()
            if left <= 0:
                self.stop()
                self.returncode = 124
                with self.log.open("a", encoding="utf-8") as log:
                    log.write(f"\nEnded: not done after {self.minutes:g} minutes.\n")
                break
            try:
                self.returncode = process.wait(timeout=min(60.0, left))
            except subprocess.TimeoutExpired:
                say(f"    {self.target}: {time.monotonic() - self._started:.0f} s so far")
        self.seconds = time.monotonic() - self._started
        self.counts = count(self.log.read_text(encoding="utf-8", errors="replace"), self.returncode or 0)

    def stop(self) -> None:
        """End everything that the target started, if it still runs."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            os.killpg(process.pid, number)
            try:
                process.wait(timeout=20)
                return
            except subprocess.TimeoutExpired:
                continue


def say(text: str) -> None:
    print(text, flush=True)


def count(log: str, returncode: int) -> collections.Counter[str]:
    """Passed, failed and skipped of one stage: the sum of its pytest summaries, or the stage itself as one."""
    total: collections.Counter[str] = collections.Counter()
    for summary in _SUMMARY.findall(_COLOURS.sub("", log)):
        for part in summary.split(", "):
            number, word = part.split(" ")
            total["failed" if word.startswith("error") else word] += int(number)
    if returncode and not total["failed"]:
        total["failed"] += 1
    elif not total["passed"] and not total["skipped"] and not total["failed"]:
        total["passed"] += 1
    return total


def report(stage: Stage) -> None:
    """One line for a stage that is done; the end of its log if it failed."""
    counts = ", ".join(f"{stage.counts[word]} {word}" for word in ("passed", "failed", "skipped") if stage.counts[word])
    say(f"    {'FAILED' if stage.returncode else 'ok'} after {stage.seconds:.0f} s: {counts}")
    if stage.returncode:
        lines = stage.log.read_text(encoding="utf-8", errors="replace").splitlines()
        say("\n".join(f"    | {line}" for line in lines[-TAIL:]))
        say(f"    The whole log: {stage.log}")


def run(stages: t.Sequence[Stage], behind: t.Mapping[str, Stage]) -> list[Stage]:
    """Run everything; return all stages in the order they were reported."""
    done: list[Stage] = []
    for stage in behind.values():
        say(f"==> {stage.target} (beside the others)")
        stage.start(nice=10)
    for stage in stages:
        helper = behind.get(stage.target)
        if helper is not None and helper not in done:
            say(f"==> {helper.target} (waiting: {stage.target} needs it)")
            helper.wait()
            report(helper)
            done.append(helper)
        say(f"==> {stage.target}")
        stage.start()
        stage.wait()
        report(stage)
        done.append(stage)
    for helper in behind.values():
        if helper not in done:
            helper.wait()
            report(helper)
            done.append(helper)
    return done


def finish(done: t.Sequence[Stage]) -> int:
    """Print the table and the last line; return the exit code."""
    total: collections.Counter[str] = collections.Counter()
    say("\n==> summary")
    for stage in done:
        total.update(stage.counts)
        say(f"    {'FAILED' if stage.returncode else 'ok':6} {stage.seconds:6.0f} s  {stage.target}")
    if total["skipped"]:
        say(f"    skipped: {total['skipped']} (the logs in {LOGS} say why)")
    line = f"{total['passed']} passed, {total['failed']} failed"
    (LOGS / "result").write_text(line + "\n", encoding="utf-8")
    say(line)
    return 1 if total["failed"] or any(stage.returncode for stage in done) else 0


def parse(argv: t.Sequence[str]) -> tuple[list[Stage], dict[str, Stage]]:
    """The stages of a command line, and by the target that needs it, what runs beside them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--behind", action="append", default=[], metavar="TARGET:NEEDED_BY")
    parser.add_argument("targets", nargs="+", metavar="TARGET[:MINUTES]")
    arguments = parser.parse_args(argv)
    stages = []
    for text in arguments.targets:
        target, dummy, minutes = text.partition(":")
        stages.append(Stage(target, float(minutes or MINUTES)))
    behind = {}
    for text in arguments.behind:
        target, dummy, needed_by = text.partition(":")
        behind[needed_by] = Stage(target, 2 * MINUTES)
    return stages, behind


def main() -> int:
    stages, behind = parse(sys.argv[1:])
    LOGS.mkdir(parents=True, exist_ok=True)
    started = [*behind.values(), *stages]
    try:
        return finish(run(stages, behind))
    except KeyboardInterrupt:
        say("Interrupted.")
        return 130
    finally:
        for stage in started:
            stage.stop()


if __name__ == "__main__":
    sys.exit(main())
