# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon.json merged, the drop-in, and the conflicts that would keep an engine from starting."""

from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.dockyard.machine.plugins.module_utils import engine_daemon as daemon
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError

DEBIAN = "/usr/sbin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock $DOCKER_OPTS"
DOCKER_MACHINE = """[Service]
ExecStart=
ExecStart=/usr/bin/dockerd -H tcp://0.0.0.0:2376 -H unix:///var/run/docker.sock --storage-driver overlay2 --tlsverify \
--tlscacert /etc/docker/ca.pem --tlscert /etc/docker/server.pem --tlskey /etc/docker/server-key.pem --label env=test \
--label provider=generic --insecure-registry reg.local:5000 --log-level=info --mtu=1400 --strange 7
Environment=FOO=bar "B=c d"
"""


def code(call) -> str:
    with pytest.raises(MachineError) as caught:
        call()
    return caught.value.code


# --- daemon.json


def test_empty_file_is_an_empty_configuration() -> None:
    assert daemon.parse_daemon_json(" \n") == {}


@pytest.mark.parametrize("text", ["{ broken", "[]", '"x"', "// comment\n{}", "nul"])
def test_what_cannot_be_merged_is_refused(text: str) -> None:
    assert code(lambda: daemon.parse_daemon_json(text)) == "daemon_json_invalid"


def test_merge_order() -> None:
    existing = {"log-driver": "journald", "debug": True, "labels": ["theirs"]}
    merged = daemon.merge(existing, {"labels": ["ours"]}, {"log-driver": "local", "live-restore": True})
    assert merged.config == {"log-driver": "journald", "debug": True, "labels": ["ours"], "live-restore": True}
    assert merged.owned == ["labels", "live-restore"]


def test_what_we_set_once_is_removed_when_it_is_no_longer_wanted() -> None:
    first = daemon.merge({"debug": True}, {"labels": ["a"], "bip": "10.9.0.1/24"}, {"log-driver": "local"})
    second = daemon.merge(first.config, {"labels": ["a"]}, {"log-driver": "journald"}, first.owned)
    assert second.config == {"debug": True, "labels": ["a"], "log-driver": "journald"}


def test_null_removes_a_key_and_keeps_a_default_out() -> None:
    merged = daemon.merge({"debug": True}, {"debug": None, "userland-proxy": None}, {"userland-proxy": False})
    assert merged.config == {}
    assert merged.owned == []


_KEYS = st.sampled_from(["a", "b", "c", "d", "e"])
_CONFIGS = st.dictionaries(_KEYS, st.integers())


@given(existing=_CONFIGS, wanted=st.dictionaries(_KEYS, st.none() | st.integers()), defaults=_CONFIGS)
@settings(max_examples=200, deadline=None)
def test_merging_twice_changes_nothing(existing, wanted, defaults) -> None:
    first = daemon.merge(existing, wanted, defaults)
    text = daemon.render_drop_in(DEBIAN, {}, first.owned)
    second = daemon.merge(json.loads(daemon.render_daemon_json(first.config)), wanted, defaults, daemon.owned_keys(text))
    assert second == first
    untouched = set(existing) - set(wanted)
    assert all(first.config[key] == existing[key] for key in untouched)


@pytest.mark.parametrize("key", ["hosts", "tls", "tlsverify", "tlscacert", "tlscert", "tlskey"])
def test_nobody_turns_tls_off_by_accident(key: str) -> None:
    assert code(lambda: daemon.check_wanted({key: False})) == "reserved_key"


def test_hosts_key() -> None:
    assert code(lambda: daemon.check_hosts_key({"hosts": ["fd://"]}, "daemon.json")) == "conflicting_hosts"
    daemon.check_hosts_key({"debug": True}, "daemon.json")


# --- units


def test_exec_start_of_a_unit_with_resets_and_continuations() -> None:
    unit = "[Unit]\nExecStart=no\n[Service]\nExecStart=/old\n# x\nExecStart=\nExecStart=/usr/bin/dockerd \\\n   -H fd:// $DOCKER_OPTS\n"
    assert shlex.split(daemon.exec_start(unit, "unit")) == ["/usr/bin/dockerd", "-H", "fd://", "$DOCKER_OPTS"]


@pytest.mark.parametrize("unit", ["[Service]\n", "[Service]\nExecStart=/a\nExecStart=/b\n", ""])
def test_unit_without_one_command(unit: str) -> None:
    assert code(lambda: daemon.exec_start(unit, "unit")) == "unit_invalid"


def test_command_keeps_what_the_vendor_says() -> None:
    assert daemon.command_line(DEBIAN, "tcp://0.0.0.0:2376", True) == f"{DEBIAN} -H tcp://0.0.0.0:2376"


@pytest.mark.parametrize(("activation", "expected"), [(True, "-H fd://"), (False, "-H unix:///var/run/docker.sock")])
def test_local_socket_stays_when_the_vendor_names_none(activation: bool, expected: str) -> None:
    assert daemon.command_line("/usr/bin/dockerd", "tcp://[::]:2376", activation) == f"/usr/bin/dockerd {expected} -H tcp://[::]:2376"


@pytest.mark.parametrize(
    ("address", "expected"), [("0.0.0.0", "tcp://0.0.0.0:1"), ("::", "tcp://[::]:1"), ("[fd00::1]", "tcp://[fd00::1]:1")]
)
def test_listener(address: str, expected: str) -> None:
    assert daemon.listener(address, 1) == expected


def test_flags() -> None:
    assert daemon.flags("-/usr/bin/dockerd -H fd:// --label=a=b --tlsverify --log-level debug $X -D") == [
        ("H", "fd://"), ("label", "a=b"), ("tlsverify", ""), ("log-level", "debug"), ("D", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["dockerd -H tcp://0.0.0.0:2375", "dockerd --host=tcp://:2375", "dockerd --host tcp://1.2.3.4"])
def test_other_listeners_are_found(command: str) -> None:
    assert code(lambda: daemon.check_conflicts(command, {}, "unit")) == "conflicting_listener"


@pytest.mark.parametrize(
    ("command", "config"),
    [
        ("dockerd --label a=b", {"labels": []}),
        ("dockerd -s overlay2", {"storage-driver": "x"}),
        ("dockerd --tlsverify", {"tlsverify": True}),
    ],
)
def test_double_settings_are_found(command: str, config: dict) -> None:
    assert code(lambda: daemon.check_conflicts(command, config, "unit")) == "conflicting_flag"


def test_vendor_units_are_no_conflict() -> None:
    daemon.check_conflicts(DEBIAN, {"tlsverify": True, "labels": [], "log-driver": "local"}, "unit")


# --- the drop-in


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("b c", '"A=b c"'),
        ("$HOME", '"A=$HOME"'),
        ("100%", '"A=100%%"'),
        ('say "x"', '"A=say \\"x\\""'),
        ("a\\b", '"A=a\\\\b"'),
        ("x\ny\tz", '"A=x\\ny\\tz"'),
        ("", '"A="'),
    ],
)
def test_environment_is_quoted_for_systemd(value: str, expected: str) -> None:
    assert daemon.quote_environment("A", value) == expected


@given(value=st.text(alphabet=st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])))
def test_a_value_never_leaves_its_line(value: str) -> None:
    quoted = daemon.quote_environment("A", value)
    assert "\n" not in quoted and "\r" not in quoted
    assert quoted.startswith('"A=') and quoted.endswith('"')


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", 'A"', "Ä"])
def test_names_of_variables(name: str) -> None:
    assert code(lambda: daemon.quote_environment(name, "x")) == "invalid_env"


def test_drop_in_remembers_keys_and_hides_values() -> None:
    text = daemon.render_drop_in(DEBIAN, {"HTTPS_PROXY": "http://me:secret@proxy", "A": "b"}, ["labels"])
    assert daemon.owned_keys(text) == ["labels"]
    assert text.index('"A=') < text.index('"HTTPS_PROXY=')
    assert daemon.unit_values(text, "Service", "ExecStart") == [DEBIAN]
    assert "secret" not in daemon.hide_environment(text) and "HTTPS_PROXY" in daemon.hide_environment(text)


@pytest.mark.parametrize(
    "text", ["", "# daemon.json keys kept by dockyard.machine: nonsense", "# daemon.json keys kept by dockyard.machine: 7"]
)
def test_damaged_memory_owns_nothing(text: str) -> None:
    assert daemon.owned_keys(text) == []


# --- hosts of Docker Machine


def test_drop_in_of_docker_machine_is_understood() -> None:
    adopted = daemon.from_docker_machine(DOCKER_MACHINE)
    assert adopted is not None
    assert adopted.config == {
        "storage-driver": "overlay2",
        "labels": ["env=test", "provider=generic"],
        "insecure-registries": ["reg.local:5000"],
        "log-level": "info",
        "mtu": 1400,
    }
    assert adopted.environment == ['FOO=bar "B=c d"']
    assert adopted.unknown == ["strange"]


def test_our_own_drop_in_is_not_taken_over() -> None:
    assert daemon.from_docker_machine(daemon.render_drop_in(DEBIAN, {}, [])) is None
    assert daemon.from_docker_machine("") is None
