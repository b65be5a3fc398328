# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory of the machines in a store. Reads files only, unless it is told to ask providers as well."""

from __future__ import annotations

DOCUMENTATION = r"""
name: machines
short_description: Docker machines from the machine store
version_added: 1.0.0
author: The dockyard.machine authors (@dockyard)
description:
  - Lists the machines that this collection has made, and those that Docker Machine has made, from the machine store.
  - Sets what Ansible needs to log in, what Docker clients need to reach the engine, and groups by driver and state.
  - Reads files only, so the state is that of the last run, unless O(providers) says whom to ask as well.
  - A machine whose record cannot be read gives a warning; all others are listed.
  - The name of the file must end in C(machines.yml), C(machines.yaml), C(docker_machine.yml) or C(docker_machine.yaml).
notes:
  - >-
    Variables of each host are C(ansible_host), C(ansible_port), C(ansible_user), C(ansible_ssh_private_key_file), the options that
    check its host key (C(ansible_ssh_extra_args), C(ansible_sftp_extra_args), C(ansible_scp_extra_args) and
    C(ansible_host_key_checking)), C(DOCKER_HOST), C(DOCKER_TLS_VERIFY), C(DOCKER_CERT_PATH), C(DOCKER_MACHINE_NAME), the same four
    with the prefix C(dm_), C(machine) (the machine as its driver described it), C(machine_driver), C(machine_running) (a truth
    value, for C(enabled_var) of AWX), C(machine_record) (owner, engine and more), C(dm_tags) and C(docker_machine_node_attributes).
  - C(ansible_ssh_common_args) is never set, so that it stays free for a jump host.
  - >-
    Groups are C(machines), C(driver_NAME) and C(state_NAME). Characters that a group's name cannot have become underscores.
  - >-
    Inventories for C(community.docker.docker_machine) go on working when C(plugin) is changed, with two other defaults. Machines
    that do not run are listed too (O(running_required)), and so are those that have no engine yet (O(daemon_env)).
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [dockyard.machine.machines]
  store:
    description:
      - The machine store. A relative path begins at the folder of the inventory file.
      - Default is C(~/.docker/machine).
    type: str
    env:
      - name: MACHINE_STORAGE_PATH
  providers:
    description:
      - Providers to ask for machines that carry our marks. This is what another computer or an AWX job sees, where there is no store.
      - State and addresses come from the provider; keys, pins and certificates from the store as far as it has them.
      - A provider that cannot be asked is an error, so that a source of AWX never loses hosts by a failed call.
    type: list
    elements: dict
    default: []
    suboptions:
      driver:
        description: The driver, for example V(ec2).
        type: str
        required: true
      options:
        description: The driver's options, as its module takes them; its environment variables serve as well.
        type: dict
      owner:
        description: Whose machines. O(owner) when not given.
        type: str
      ssh_user:
        description: Account for SSH. The driver's default when not given.
        type: str
  owner:
    description: Whose machines to ask providers for. The store's owner when not given.
    type: str
    env:
      - name: DOCKYARD_OWNER
  provider_timeout:
    description: Seconds that each provider may take.
    type: float
    default: 120
  cert_path:
    description: Folder with C(ca.pem), C(cert.pem) and C(key.pem) for machines of which the store has none.
    type: path
    env:
      - name: DOCKYARD_CERT_PATH
  drivers:
    description: Only machines of these drivers. An empty list means all.
    type: list
    elements: str
    default: []
  states:
    description: Only machines in these states. An empty list means all.
    type: list
    elements: str
    choices: [running, stopped, starting, stopping, paused, saved, error, unknown]
    default: []
  filters:
    description:
      - Expressions that choose hosts by their variables, tried in turn until one is true.
      - Each entry has one key, C(include) or C(exclude), with an expression or a truth value. A machine that none matches is listed.
    type: list
    elements: dict
    default: []
  running_required:
    description:
      - Whether to leave out machines that were not running at the last run.
      - A machine whose state is not known, such as one that Docker Machine has made, is listed.
    type: bool
    default: false
  daemon_env:
    description:
      - What to do with a machine whose engine cannot be reached by Docker clients, because it has no address or no certificates yet.
      - V(require) leaves it out with a warning, V(require-silently) without one.
      - V(optional) lists it without C(DOCKER_*) variables and warns, V(optional-silently) does not warn.
      - V(skip) sets C(DOCKER_*) variables on no machine.
    type: str
    choices: [require, require-silently, optional, optional-silently, skip]
    default: optional-silently
  split_tags:
    description:
      - Whether C(dm_tags) is a dictionary instead of one string with commas, for C(keyed_groups).
      - A tag C(key=value) or C(key:value) becomes a key with a value, one without becomes a key with an empty value.
    type: bool
    default: false
  verbose_output:
    description:
      - Whether to set C(docker_machine_node_attributes), which C(docker-machine inspect) printed, without credentials.
    type: bool
    default: true
"""

EXAMPLES = r"""
# machines.yml: everything in ~/.docker/machine
plugin: dockyard.machine.machines
---
# prod.machines.yml: a store beside the inventory, groups by region and tag
plugin: dockyard.machine.machines
store: ../store
running_required: true
keyed_groups:
  - prefix: region
    key: machine.details.region | default('none')
  - prefix: tag
    key: machine.tags
groups:
  web: inventory_hostname.startswith('web')
compose:
  docker_version: machine_record.engine.version | default('')
---
# team.machines.yml: no store; what two providers show of the team's machines
plugin: dockyard.machine.machines
owner: team-web
cert_path: /run/secrets/docker
providers:
  - driver: ec2
    options:
      region: eu-central-1
  - driver: digitalocean
"""

import os
import pathlib
import re
import shlex
import typing as t

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible_collections.dockyard.machine.plugins.module_utils import client_files
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import State
from ansible_collections.dockyard.machine.plugins.module_utils.store import BrokenRecord, Record, Store
from ansible_collections.dockyard.machine.plugins.plugin_utils import providers

try:
    from ansible.template import trust_as_template
except ImportError:
    # ansible-core before 2.19.
    trust_as_template = None

Variables = dict[str, t.Any]

SUFFIXES = ("machines.yml", "machines.yaml", "docker_machine.yml", "docker_machine.yaml")

_TEMPLATE = re.compile(r"\{[{%#]")


def plain(value: t.Any) -> t.Any:
    """Mark a value so that it is data for every release of ansible-core, and shows as a plain string where it may.

    Since 2.19, strings of a plugin are not templates and print with a marker; trusting those that could be no template
    anyway makes them print plainly. Before, all were templates; those with braces are wrapped.
    """
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    if not isinstance(value, str):
        return value
    suspicious = _TEMPLATE.search(value) is not None
    if trust_as_template is None:
        return wrapped(value) if suspicious else value
    return value if suspicious else trust_as_template(value)


def wrapped(value: str) -> t.Any:
    """Keep ansible-core before 2.19 from rendering a string."""
    from ansible.utils.unsafe_proxy import wrap_var

    return wrap_var(value)


def group_name(prefix: str, word: str) -> str:
    """A valid group name."""
    return re.sub(r"[^A-Za-z0-9_]", "_", f"{prefix}_{word}")


def tags_of(record: Record, attributes: Variables) -> str:
    """The tags as one string; Docker Machine's own as it wrote them."""
    driver = attributes.get("Driver", {})
    if record.imported:
        return str(driver.get("Tags") or "")
    tags = record.machine.tags if record.machine else {}
    return ",".join(f"{key}={value}" if value else key for key, value in sorted(tags.items()))


def split_tags(tags: str) -> dict[str, str]:
    """The same as a dictionary."""
    found = {}
    for tag in filter(None, (part.strip() for part in tags.split(","))):
        key, dummy, value = tag.partition("=" if "=" in tag else ":")
        found[key] = value
    return found


def ssh_variables(record: Record, store: Store) -> Variables:
    """How Ansible logs in; nothing while there is no address."""
    machine = record.machine
    if machine is None or not machine.address:
        return {}
    arguments = shlex.join(client_files.ssh_arguments(record, store))
    variables: Variables = {
        "ansible_host": machine.address,
        "ansible_port": machine.ssh_port,
        "ansible_ssh_extra_args": arguments,
        "ansible_sftp_extra_args": arguments,
        "ansible_scp_extra_args": arguments,
    }
    if machine.ssh_user:
        variables["ansible_user"] = machine.ssh_user
    if record.ssh_key_path:
        variables["ansible_ssh_private_key_file"] = record.ssh_key_path
    if "HostKeyAlias" in arguments:
        # A configuration that switches the check off (AWX does) would come first on the command line, and win.
        variables["ansible_host_key_checking"] = True
    return variables


def docker_variables(record: Record, store: Store, cert_path: str | None = None) -> Variables:
    """How Docker clients reach the engine; nothing while there is no address or no client certificate.

    Args:
        record: the machine's.
        store: where its certificates may be.
        cert_path: where others are, for a machine of which the store has none.
    """
    endpoint = record.machine.endpoint if record.machine else ""
    folder = store.machine_dir(record.name)
    if cert_path and not folder.exists():
        folder = pathlib.Path(cert_path)
    if not endpoint or not all((folder / name).exists() for name in ("ca.pem", "cert.pem", "key.pem")):
        return {}
    values = client_files.env_variables(endpoint, folder, record.name)
    return {**values, **{f"dm_{key}": value for key, value in values.items()}}


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """``dockyard.machine.machines``"""

    NAME = "dockyard.machine.machines"

    def verify_file(self, path: str) -> bool:
        """Whether the file may be for this plugin."""
        return bool(super().verify_file(path)) and path.endswith(SUFFIXES)

    def parse(self, inventory: t.Any, loader: t.Any, path: str, cache: bool = True) -> None:
        """Fill the inventory."""
        super().parse(inventory, loader, path, cache)
        config = self._read_config_data(path)
        key = self.get_cache_key(path)
        caching = bool(self.get_option("cache"))
        hosts: list[Variables] | None = None
        if caching and cache:
            try:
                hosts = self._cache[key]
            except KeyError:
                pass
        if hosts is None:
            hosts = self._hosts(self._store(path, config))
            if caching:
                self._cache[key] = hosts
        self.inventory.add_group("machines")
        for host in hosts:
            self._add(host)

    def _store(self, path: str, config: t.Any) -> Store:
        chosen = self.get_option("store")
        if not chosen:
            return Store(None)
        expanded = os.path.expanduser(os.path.expandvars(chosen))
        if isinstance(config, dict) and config.get("store"):
            expanded = os.path.join(os.path.dirname(os.path.abspath(path)), expanded)
            if not pathlib.Path(expanded).exists():
                self.display.warning(f"The machine store {expanded} does not exist yet: there are no machines.")
        return Store(expanded)

    def _hosts(self, store: Store) -> list[Variables]:
        """Every machine that the cache shall keep: ``{"name", "variables", "groups"}`` of JSON types."""
        try:
            records = store.records()
            for provider in self.get_option("providers"):
                owner = self.get_option("owner") or store.owner(write=False)
                records = providers.merge(records, providers.listed(provider, owner, self.get_option("provider_timeout")))
        except MachineError as error:
            raise AnsibleParserError(error.message) from error
        hosts = []
        for record in records:
            if isinstance(record, BrokenRecord):
                self.display.warning(f"The machine {record.name} is left out. {record.error.message}")
            elif self._chosen(record):
                try:
                    host = self._host(record, store)
                except MachineError as error:
                    self.display.warning(f"The machine {record.name} is left out. {error.message}")
                    continue
                if host:
                    hosts.append(host)
        return hosts

    def _chosen(self, record: Record) -> bool:
        state = record.machine.state if record.machine else State.UNKNOWN
        drivers, states = self.get_option("drivers"), self.get_option("states")
        if self.get_option("running_required") and state not in (State.RUNNING, State.UNKNOWN):
            return False
        return (not drivers or record.driver in drivers) and (not states or state in states)

    def _host(self, record: Record, store: Store) -> Variables | None:
        state = record.machine.state if record.machine else State.UNKNOWN
        variables = ssh_variables(record, store)
        daemon_env = self.get_option("daemon_env")
        if daemon_env != "skip":
            docker = docker_variables(record, store, self.get_option("cert_path"))
            if not docker and not self._without_engine(record.name, daemon_env):
                return None
            variables.update(docker)
        verbose = self.get_option("verbose_output")
        attributes = store.docker_machine_config(record) if verbose or record.imported else {}
        tags = tags_of(record, attributes)
        variables.update(
            machine=record.machine.to_dict() if record.machine else {"name": record.name, "driver": record.driver, "state": state},
            machine_driver=record.driver,
            machine_running=state == State.RUNNING,
            machine_record={
                "store": str(store.path),
                "owner": record.owner,
                "created": record.created,
                "host_keys": record.host_keys,
                "engine": record.engine,
                "engine_options": record.engine_options,
                "options": record.options,
                "imported": record.imported,
            },
            dm_tags=split_tags(tags) if self.get_option("split_tags") else tags,
        )
        if verbose:
            variables["docker_machine_node_attributes"] = attributes
        groups = ["machines", group_name("driver", record.driver), group_name("state", state)]
        return {"name": record.name, "variables": variables, "groups": groups}

    def _without_engine(self, name: str, daemon_env: str) -> bool:
        """Say what is to be said of a machine whose engine cannot be reached; whether it is listed all the same."""
        required = daemon_env.startswith("require")
        if not daemon_env.endswith("silently"):
            outcome = "it is left out" if required else "it has no DOCKER_* variables"
            self.display.warning(f"The machine {name} has no address or no client certificates yet: {outcome}.")
        return not required

    def _add(self, host: Variables) -> None:
        name = host["name"]
        variables = plain(host["variables"])
        if not self._passes(name, variables):
            return
        self.inventory.add_host(name)
        for group in host["groups"]:
            self.inventory.add_group(group)
            self.inventory.add_host(name, group)
        for key, value in variables.items():
            self.inventory.set_variable(name, key, value)
        strict = self.get_option("strict")
        # As for the predecessor, expressions also see the keys of docker_machine_node_attributes by themselves.
        seen = {**variables.get("docker_machine_node_attributes", {}), **variables, "inventory_hostname": name}
        self._set_composite_vars(self.get_option("compose"), seen, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), seen, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), seen, name, strict=strict)

    def _passes(self, name: str, variables: Variables) -> bool:
        for entry in self.get_option("filters"):
            if len(entry) != 1 or not set(entry) <= {"include", "exclude"}:
                raise AnsibleParserError(f"An entry of filters has one key, include or exclude; this one has {sorted(entry)}")
            verb, condition = next(iter(entry.items()))
            if not isinstance(condition, bool):
                condition = self._compose(condition, {**variables, "inventory_hostname": name})
            if condition:
                return bool(verb == "include")
        return True
