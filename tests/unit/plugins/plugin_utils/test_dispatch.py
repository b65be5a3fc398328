# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a driver's name leads to its module and its options."""

from __future__ import annotations

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils.drivers.generic import GenericDriver
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.plugin_utils.dispatch import (
    check_options,
    driver_variables,
    load_driver,
    module_name,
    secret_options,
)


def test_a_short_name_is_our_module_and_a_dotted_one_is_somebodys() -> None:
    assert module_name("generic") == "dockyard.machine.generic_machine"
    assert module_name("acme.cloud.server") == "acme.cloud.server"


def test_the_module_leads_to_its_driver() -> None:
    assert load_driver("dockyard.machine.generic_machine") is GenericDriver
    assert load_driver("acme.cloud.server") is None


def test_an_unknown_driver_is_named_with_what_to_do() -> None:
    with pytest.raises(MachineError, match="qemo") as caught:
        load_driver(module_name("qemo"))
    assert caught.value.code == "unknown_driver"
    assert "ansible-doc" in caught.value.message


def test_variables_named_after_driver_and_option_are_its_options() -> None:
    found = driver_variables(GenericDriver, {"generic_ssh_port": 2222, "generic_nonsense": 1, "other_address": "x"})
    assert found == {"ssh_port": 2222}


def test_secret_options_are_known() -> None:
    class Secretive(GenericDriver):
        options = {"password": {"type": "str", "no_log": True}, "region": {"type": "str"}}

    assert secret_options(Secretive) == {"password"}
    assert secret_options(None) == set()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"adress": "192.0.2.1"}, "no option adress"),
        ({"ssh_port": "many"}, "ssh_port"),
        ({"state": "absent"}, "machine_state"),
    ],
)
def test_options_are_refused_before_anything_is_written(options: dict, word: str) -> None:
    with pytest.raises(MachineError, match=word) as caught:
        check_options(GenericDriver, options)
    assert caught.value.code == "invalid_option"


def test_options_that_only_the_module_can_judge_pass() -> None:
    check_options(GenericDriver, {"ssh_port": "2222"})
