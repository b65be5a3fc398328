# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver ``gce`` without its SDK: names, labels, images, endpoints, errors, the script that brings cloud-init."""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import subprocess
import typing as t

import pytest

from ansible_collections.dockyard.machine.plugins.module_utils import gce_api, gce_instance
from ansible_collections.dockyard.machine.plugins.module_utils.driver import Wanted, new_deadline
from ansible_collections.dockyard.machine.plugins.module_utils.drivers.gce import GceDriver
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError, TransientError
from ansible_collections.dockyard.machine.plugins.module_utils.gce_options import OPTIONS


def options(**changes: t.Any) -> dict[str, t.Any]:
    return {**{name: spec.get("default") for name, spec in OPTIONS.items()}, "project": "demo", **changes}


def api(**changes: t.Any) -> gce_api.Api:
    return gce_api.Api(options(**changes), new_deadline(Wanted("web1")), 0.01)


def refused(call: t.Callable[[], t.Any]) -> MachineError:
    with pytest.raises(MachineError) as caught:
        call()
    return caught.value


# --- images --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "places"),
    [
        ("debian-12", [("debian-cloud", "debian-12", "")]),
        ("golden", [("demo", "", "golden"), ("demo", "golden", "")]),
        ("debian-cloud/debian-12", [("debian-cloud", "", "debian-12"), ("debian-cloud", "debian-12", "")]),
        ("example.com:old/img", [("example.com:old", "", "img"), ("example.com:old", "img", "")]),
        ("ubuntu-os-cloud/global/images/u-1", [("ubuntu-os-cloud", "", "u-1")]),
        ("global/images/u-1", [("demo", "", "u-1")]),
        ("projects/p/global/images/family/f", [("p", "f", "")]),
        ("https://www.googleapis.com/compute/v1/projects/p/global/images/u-1", [("p", "", "u-1")]),
        ("https://compute.googleapis.com/compute/v1/projects/p/global/images/family/f", [("p", "f", "")]),
    ],
)
def test_ways_to_name_an_image(spec: str, places: list[tuple[str, str, str]]) -> None:
    assert [(place.project, place.family, place.name) for place in gce_instance.image_places(spec, "demo", "X86_64")] == places


def test_every_alias_has_an_image_for_both_processors() -> None:
    for alias in gce_instance.ALIASES:
        x86, arm = (gce_instance.image_places(alias, "demo", kind)[0].family for kind in ("X86_64", "ARM64"))
        assert x86 and arm and x86 != arm


@pytest.mark.parametrize("spec", ["", "No Image", "a/b/c", "https://example.com/image.img", "p/Upper"])
def test_what_names_no_image(spec: str) -> None:
    error = refused(lambda: gce_instance.image_places(spec, "demo", "X86_64"))
    assert error.code == "invalid_option" and error.where == "option image" and "debian-12" in error.hint


@pytest.mark.parametrize(
    ("machine_type", "disk"),
    [("e2-medium", "pd-balanced"), ("n4-standard-2", "hyperdisk-balanced"), ("c4a-highmem-8", "hyperdisk-balanced")],
)
def test_the_disk_fits_the_machine_type(machine_type: str, disk: str) -> None:
    assert gce_instance.default_disk_type(machine_type) == disk


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("default", "projects/demo/global/networks/default"),
        ("global/networks/x", "projects/demo/global/networks/x"),
        ("projects/host/global/networks/x", "projects/host/global/networks/x"),
        ("https://www.googleapis.com/compute/v1/projects/host/global/networks/x", "projects/host/global/networks/x"),
    ],
)
def test_paths_of_resources(value: str, path: str) -> None:
    assert gce_instance.resource_path("networks", value, "demo") == path


# --- labels --------------------------------------------------------------------------------------------------------


def test_tags_become_labels_and_come_back() -> None:
    tags = {"Stage": "Prod", "cost-center": "42", "e": ""}
    labels = gce_instance.tag_labels(tags)
    assert labels == {"stage": "prod", "cost-center": "42", "e": ""}
    shown = {**labels, "dockyard-machine": "web1", "goog-ops": "x"}
    assert gce_instance.read_tags(shown, gce_instance.tag_note(tags)) == tags
    assert gce_instance.tag_note(labels) == "" and gce_instance.read_tags(shown, "") == labels


def test_labels_that_somebody_changed_win_over_the_note() -> None:
    note = gce_instance.tag_note({"Stage": "Prod"})
    assert gce_instance.read_tags({"stage": "test"}, note) == {"stage": "test"}
    for broken in ("no json", "[1]", '{"Stage": 1}', '{"a": null}', '{"1": "x"}'):
        assert gce_instance.read_tags({"stage": "test"}, broken) == {"stage": "test"}


def test_long_values_are_cut_to_what_a_label_holds() -> None:
    labels = gce_instance.tag_labels({"k" * 80: "v" * 80})
    assert {len(text) for item in labels.items() for text in item} == {63}


@pytest.mark.parametrize(
    "tags",
    [
        {"1st": "x"},
        {"_x": "y"},
        {"": "x"},
        {"dockyard-machine-x": "y"},
        {"Goog-x": "y"},
        {"A": "1", "a": "2"},
        {f"k{n}": "" for n in range(62)},
    ],
)
def test_tags_that_cannot_be_labels(tags: dict[str, str]) -> None:
    error = refused(lambda: gce_instance.tag_labels(tags))
    assert error.code == "invalid_option" and error.where == "option tags" and error.hint


def test_as_many_tags_as_fit() -> None:
    assert len(gce_instance.tag_labels({f"k{n}": "" for n in range(61)})) == 61


# --- the request ---------------------------------------------------------------------------------------------------


def plan(**changes: t.Any) -> gce_instance.Plan:
    values: dict[str, t.Any] = {
        "project": "demo", "zone": "us-central1-a", "machine_type": "e2-medium", "architecture": "X86_64", "image": "i",
        "image_project": "ubuntu-os-cloud", "secure_image": True, "disk_size": 10, "disk_type": "pd-balanced", "network": "n",
    }  # fmt: skip
    return gce_instance.Plan(**{**values, **changes})


def test_user_data_that_is_too_long_is_refused_before_any_call() -> None:
    wanted = Wanted("web1", user_data="#cloud-config\n" + "x" * 262144)
    error = refused(lambda: gce_instance.metadata(wanted, options(), plan()))
    assert error.where == "option user_data" and "256 KB" in error.why


@pytest.mark.parametrize(
    "key", ["user-data", "enable-oslogin", "block-project-ssh-keys", "dockyard-machine-tags", "dockyard-machine-image"]
)
def test_metadata_that_is_ours(key: str) -> None:
    error = refused(lambda: gce_instance.metadata(Wanted("web1"), options(metadata={key: "x"}), plan()))
    assert error.where == "option metadata" and key in error.what


def test_a_startup_script_of_the_users_stands() -> None:
    wanted = Wanted("web1", user_data="#cloud-config\n{}\n")
    found = gce_instance.metadata(wanted, options(metadata={"startup-script": "mine"}), plan(image_project="debian-cloud"))
    assert found["startup-script"] == "mine"
    assert gce_instance.metadata(wanted, options(), plan(image_project="debian-cloud"))["startup-script"].startswith("#!")
    assert "startup-script" not in gce_instance.metadata(Wanted("web1"), options(), plan(image_project="debian-cloud"))


def test_request_ids_follow_the_token_the_last_instance_and_the_request() -> None:
    def request_id(**wanted: t.Any) -> str:
        body = wanted.pop("body", {"name": "web1"})
        driver = GceDriver(Wanted("web1", **wanted), options(), new_deadline(Wanted("web1")))
        return str(driver._request_id(body))

    first = request_id(token="a")
    assert request_id(token="a") == first
    others = [request_id(token="b"), request_id(token="a", provider_id="7"), request_id(token="a", body={"name": "web2"}), request_id()]
    assert len({first, *others}) == 5 and request_id() != request_id()


# --- who is talked to, as whom -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "kind", "result"),
    [
        ("", "auto", ""),
        ("https://compute-x.p.googleapis.com", "auto", "https://compute-x.p.googleapis.com"),
        ("compute-x.p.googleapis.com", "auto", "https://compute-x.p.googleapis.com"),
        ("https://compute-x.p.googleapis.com:8443/", "auto", "https://compute-x.p.googleapis.com:8443"),
        ("http://127.0.0.1:8080", "anonymous", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "anonymous", "http://[::1]:8080"),
        ("http://localhost:8080", "anonymous", "http://localhost:8080"),
    ],
)
def test_endpoints(endpoint: str, kind: str, result: str) -> None:
    assert gce_api.check_endpoint(endpoint, kind) == result


@pytest.mark.parametrize(
    ("endpoint", "kind", "option"),
    [
        ("", "anonymous", "auth_kind"),
        ("https://compute.googleapis.com", "anonymous", "auth_kind"),
        ("http://127.0.0.1.example.com", "anonymous", "auth_kind"),
        ("http://localhost.example.com", "anonymous", "auth_kind"),
        ("http://127.0.0.1@example.com", "anonymous", "auth_kind"),
        ("http://compute.googleapis.com", "auto", "api_endpoint"),
        # Real credentials go nowhere without TLS, not even here.
        ("http://127.0.0.1:8080", "auto", "api_endpoint"),
        ("ftp://127.0.0.1", "anonymous", "api_endpoint"),
        ("https://user@example.com", "auto", "api_endpoint"),
        ("https://example.com/path", "auto", "api_endpoint"),
    ],
)
def test_endpoints_that_are_refused(endpoint: str, kind: str, option: str) -> None:
    error = refused(lambda: gce_api.check_endpoint(endpoint, kind))
    assert error.code == "invalid_option" and error.where == f"option {option}"


def test_a_missing_sdk_is_named_with_its_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> t.Any:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    error = refused(lambda: api().call("Instances", "get", {}, what="x"))
    assert error.code == "missing_library" and "pip install google-cloud-compute" in error.hint


def test_wrong_zones_and_names_are_refused_without_a_call() -> None:
    for zone in ("", "europe", "Europe-West1-b", "../x", "us-central1-a/instances"):
        error = refused(lambda zone=zone: GceDriver(Wanted("web1"), options(zone=zone), new_deadline(Wanted("web1"))))  # type: ignore[misc]
        assert error.where == "option zone"
    assert refused(lambda: GceDriver(Wanted("1"), options(), new_deadline(Wanted("1")))).code == "invalid_name"


@pytest.mark.parametrize(("option", "value"), [("owner", "Team A"), ("owner", 'x" OR labels.a:*'), ("owner", "x" * 64), ("token", "A1")])
def test_marks_that_cannot_be_labels(option: str, value: str) -> None:
    wanted = Wanted("web1", **{option: value})
    error = refused(lambda: GceDriver(wanted, options(), new_deadline(wanted)))
    assert error.code == "invalid_option" and error.where == f"option {option}"


class TestCredentials:
    """With google-auth, which opens no connection before the first call."""

    @pytest.fixture(autouse=True)
    def _sdk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("google.cloud.compute_v1")
        for name in list(os.environ):
            if name.startswith(("GOOGLE_", "GCE_", "GCP_", "CLOUDSDK_")):
                monkeypatch.delenv(name)

    def test_a_file_that_cannot_be_read(self, tmp_path: pathlib.Path) -> None:
        error = refused(lambda: api(credentials_file=str(tmp_path / "no.json")).access)
        assert error.code == "bad_credentials" and "no.json" in error.where

    @pytest.mark.parametrize(
        "text", ["s3cret no json", '["s3cret"]', '{"type": "s3cret-kind"}', '{"type": "service_account", "private_key": "s3cret"}']
    )
    def test_what_is_no_credential_is_not_shown(self, text: str) -> None:
        error = refused(lambda: api(credentials_json=text).access)
        assert error.code == "bad_credentials" and error.where == "option credentials_json"
        if "kind" not in text:
            assert "s3cret" not in error.message

    def test_a_service_accounts_key_brings_its_project(self, tmp_path: pathlib.Path) -> None:
        rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
        serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        data = {
            "type": "service_account",
            "project_id": "theirs",
            "private_key": key.decode(),
            "client_email": "a@theirs.iam.gserviceaccount.com",
        }
        text = json.dumps({**data, "token_uri": "https://oauth2.googleapis.com/token"})
        (tmp_path / "key.json").write_text(text)
        for given in ({"credentials_json": text}, {"credentials_file": str(tmp_path / "key.json")}):
            found = api(project="", **given)
            assert found.project == "theirs" and found.access.credentials.service_account_email.startswith("a@")
            assert api(project="mine", **given).project == "mine"

    def test_the_first_of_several_is_used(self) -> None:
        found = api(access_token="token-1", credentials_json="no json").access
        assert found.credentials.token == "token-1" and found.project == ""
        assert refused(lambda: api(project="", access_token="token-1").project).where == "option project"

    def test_none_at_all(self, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        error = refused(lambda: api().access)
        assert error.code == "bad_credentials" and "gcloud auth" in error.hint


# --- errors --------------------------------------------------------------------------------------------------------


class Answer(Exception):
    """As google.api_core.exceptions has them."""

    def __init__(self, code: int, reason: str, message: str, headers: dict[str, str] | None = None) -> None:
        self.code = code
        self.message = message
        self.errors = [{"message": message, "domain": "global", "reason": reason}] if reason else []
        self.response = type("Response", (), {"headers": headers or {}})()
        super().__init__(message)


@pytest.mark.parametrize(
    ("status", "reason", "message", "code", "where"),
    [
        (401, "authError", "Invalid Credentials", "bad_credentials", "option credentials_file"),
        (
            403,
            "forbidden",
            "Required 'compute.images.get' permission for 'projects/x/global/images/y'",
            "bad_credentials",
            "option credentials_file",
        ),
        (403, "accessNotConfigured", "Compute Engine API has not been used in project 1 before", "bad_credentials", "option project"),
        (403, "quotaExceeded", "Quota 'CPUS' exceeded. Limit: 8.0", "quota", "here"),
        (403, "forbidden", "Permission denied on 'locations/moon-a' (or it may not exist).", "unknown_region", "option zone"),
        (400, "invalid", "Invalid value for field 'zone': 'x'. Unknown zone.", "unknown_region", "option zone"),
        (404, "notFound", "The resource 'projects/p/zones/z' was not found", "unknown_region", "option zone"),
        (404, "notFound", "The resource 'projects/p/zones/z/machineTypes/e9' was not found", "unknown_size", "option machine_type"),
        (404, "notFound", "The resource 'projects/p/global/images/i' was not found", "unknown_image", "option image"),
        (404, "notFound", "The resource 'projects/p/global/networks/n' was not found", "not_found", "option network"),
        (404, "notFound", "The resource 'projects/p' was not found", "not_found", "option project"),
        (404, "notFound", "The resource 'projects/p/zones/z/instances/web1' was not found", "not_found", "here"),
        (
            400,
            "invalid",
            "Invalid value for field 'resource.networkInterfaces[0].accessConfigs[0].natIP': 'x'.",
            "invalid_option",
            "option address",
        ),
        (
            400,
            "invalid",
            "Invalid value for field 'resource.disks[0].initializeParams.diskType': 'x'.",
            "invalid_option",
            "option disk_type",
        ),
        (409, "alreadyExists", "The resource 'projects/p/zones/z/instances/web1' already exists", "exists", "here"),
        (400, "invalid", "Something else", "provider_error", "here"),
    ],
)
def test_errors_name_the_option_at_fault(status: int, reason: str, message: str, code: str, where: str) -> None:
    error = gce_api.api_error(Answer(status, reason, message), "It failed", "here")
    assert isinstance(error, gce_api.ApiError) and error.status == status
    assert (error.code, error.where) == (code, where)
    assert message in error.message


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (429, "", "throttled"),
        (403, "rateLimitExceeded", "throttled"),
        (403, "userRateLimitExceeded", "throttled"),
        (500, "backendError", "provider_error"),
        (503, "", "provider_error"),
        (408, "", "provider_error"),
        (412, "conditionNotMet", "conflict"),
        (400, "resourceNotReady", "conflict"),
    ],
)
def test_errors_that_may_pass(status: int, reason: str, code: str) -> None:
    error = gce_api.api_error(Answer(status, reason, "Busy", {"Retry-After": "7"}), "It failed", "here")
    assert isinstance(error, TransientError) and error.code == code
    if code != "conflict":
        assert error.retry_after == 7


@pytest.mark.parametrize(
    ("code", "message", "expected", "where"),
    [
        ("QUOTA_EXCEEDED", "Quota 'CPUS' exceeded.", "quota", "here"),
        ("ZONE_RESOURCE_POOL_EXHAUSTED", "The zone 'projects/p/zones/z' does not have enough resources", "capacity", "option zone"),
        ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "The zone has no n2", "capacity", "option zone"),
        ("RESOURCE_ALREADY_EXISTS", "It exists", "exists", "here"),
        ("RESOURCE_NOT_FOUND", "The resource 'projects/p/global/networks/n' was not found", "not_found", "option network"),
        ("INTERNAL_ERROR", "Internal error.", "provider_error", "here"),
    ],
)
def test_operations_that_end_in_an_error(code: str, message: str, expected: str, where: str) -> None:
    error = gce_api.operation_error("It failed", [(code, message)], where="here")
    assert (error.code, error.where) == (expected, where)
    assert message.rstrip(".") in error.message and code in error.message and error.hint


# --- the script for images without cloud-init ----------------------------------------------------------------------


def script(tmp_path: pathlib.Path, *commands: str, cloud_init_after_install: bool = True) -> tuple[int, list[str]]:
    """Run the startup script with stand-ins for ``commands``; its exit code and what it called."""
    folder, log = tmp_path / "bin", tmp_path / "log"
    folder.mkdir()
    install = f'cp "{folder}/stub" "{folder}/cloud-init"' if cloud_init_after_install else "false"
    (folder / "stub").write_text(f'#!/bin/sh\necho "cloud-init $*" >> "{log}"\n')
    (folder / "stub").chmod(0o755)
    for command in commands:
        body = f'case "$*" in *install*) {install};; esac' if command in ("apt-get", "dnf") else ":"
        (folder / command).write_text(f'#!/bin/sh\necho "{command} $*" >> "{log}"\n{body}\n')
        (folder / command).chmod(0o755)
    for command in ("mkdir", "sh", "cp"):
        os.symlink(f"/bin/{command}", folder / command)
    etc = tmp_path / "etc"
    text = gce_instance.STARTUP_SCRIPT.replace("/etc/cloud", str(etc))
    answer = subprocess.run(["/bin/sh", "-c", text], env={"PATH": str(folder)}, check=False, timeout=60)
    if answer.returncode == 0 and "cloud-init" not in commands:
        assert "disabled" in (etc / "cloud.cfg.d" / "99-dockyard-network.cfg").read_text()
    return answer.returncode, log.read_text().splitlines() if log.exists() else []


def test_the_script_does_nothing_where_there_is_cloud_init(tmp_path: pathlib.Path) -> None:
    assert script(tmp_path, "cloud-init", "apt-get", "systemctl", "sleep") == (0, [])


@pytest.mark.parametrize("manager", ["apt-get", "dnf"])
def test_the_script_installs_and_runs_cloud_init(tmp_path: pathlib.Path, manager: str) -> None:
    code, called = script(tmp_path, manager, "systemctl", "sleep")
    assert code == 0
    assert [line for line in called if line.startswith(manager)][-1].endswith("cloud-init")
    assert [line for line in called if line.startswith(("cloud-init", "systemctl"))] == [
        "cloud-init init --local",
        "cloud-init init",
        "systemctl try-restart ssh.service sshd.service",
        "cloud-init modules --mode=config",
        "cloud-init modules --mode=final",
    ]


def test_the_script_gives_up_after_some_tries(tmp_path: pathlib.Path) -> None:
    code, called = script(tmp_path, "apt-get", "sleep", cloud_init_after_install=False)
    assert code == 1 and len([line for line in called if line.startswith("sleep")]) == 5
