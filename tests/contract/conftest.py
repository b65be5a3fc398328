# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run every contract test with every backend: ``pytest tests/contract [--backend NAME ...]``.

A backend whose driver needs a library that is not installed is skipped, with its name, unless it was asked for.
"""

from __future__ import annotations

import pathlib
import sys
import typing as t

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "integration")]

import backend as contract  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", action="append", default=[], help="only this backend; may be given again")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--backend") or contract.names()
        metafunc.parametrize("backend", chosen, indirect=True)


@pytest.fixture(scope="session")
def started() -> t.Iterator[dict[str, contract.Backend]]:
    running: dict[str, contract.Backend] = {}
    yield running
    for item in running.values():
        item.stop()


@pytest.fixture
def backend(request: pytest.FixtureRequest, started: dict[str, contract.Backend]) -> t.Iterator[contract.Backend]:
    name = request.param
    if name not in started:
        try:
            item = contract.load(name)()
        except ModuleNotFoundError as error:
            if name in request.config.getoption("--backend"):
                raise
            pytest.skip(f"{name}: {error}")
        item.start()
        started[name] = item
    item = started[name]
    needs = request.node.get_closest_marker("needs")
    missing = sorted(set(needs.args if needs else ()) - item.can)
    if missing:
        pytest.skip(f"{name} cannot show {', '.join(missing)}")
    item.reset()
    yield item
    item.clear()
    item.release()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*abilities): leave the test out where a backend lacks one")
