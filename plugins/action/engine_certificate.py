# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of ``dockyard.machine.engine_certificate``: decide, sign, copy to the store.

One call to the host when nothing is due, two when the certificate is replaced.
"""

from __future__ import annotations

import typing as t

from ansible_collections.dockyard.machine.plugins.module_utils import files, pki
from ansible_collections.dockyard.machine.plugins.module_utils.errors import MachineError
from ansible_collections.dockyard.machine.plugins.module_utils.machine import validate_name
from ansible_collections.dockyard.machine.plugins.module_utils.store import Store
from ansible_collections.dockyard.machine.plugins.plugin_utils.controller import MachineAction

MODULE = "dockyard.machine.engine_certificate"
_CA_WARNING_DAYS = 180


def described(certificate_pem: str | bytes) -> dict[str, t.Any]:
    """A certificate as diff shows it."""
    found = pki.load_certificates(certificate_pem)
    if not found:
        return {}
    leaf = found[0]
    return {
        "subject": leaf.subject.rfc4514_string(),
        "issuer": leaf.issuer.rfc4514_string(),
        "sans": pki.certificate_sans(leaf),
        "expires": pki.ends(leaf).isoformat(),
    }


class ActionModule(MachineAction):
    """``dockyard.machine.engine_certificate``"""

    ARGUMENT_SPEC = {
        "name": {"type": "str", "required": True},
        "store": {"type": "str", "default": ""},
        "sans": {"type": "list", "elements": "str", "default": []},
        "certificate_dir": {"type": "path", "default": "/etc/docker"},
        "validity_days": {"type": "int", "default": pki.SERVER_DAYS},
        "client_validity_days": {"type": "int", "default": pki.CLIENT_DAYS},
        "renew_fraction": {"type": "float", "default": 0.34},
        "force": {"type": "bool", "default": False},
        "takeover": {"type": "bool", "default": False},
        "lock_timeout": {"type": "float", "default": 60},
    }

    def act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Authority, client, server, copies: each only when it is due."""
        self.name = validate_name(args["name"])
        self.store = Store(args["store"] or None)
        self.args = args
        self._check_options()
        sans = pki.server_sans(self.name, args["sans"])
        self.authority = pki.Authority(self.store.certs, lambda: self.store.lock("_ca", args["lock_timeout"], "make certificates"))
        reasons = self._converge_store()
        host = self._on_host({}, task_vars)
        self._check_authority_of_host(host)
        due = self._server_reason(host, sans)
        certificate = host["certificate"]
        if due:
            reasons.append(f"server certificate: {due}")
            if not self.check_mode:
                certificate = self.authority.sign_server(host["csr"], sans, self.name, days=args["validity_days"])
                ca = self.authority.ca_pem.decode("ascii")
                self._on_host({"certificate": certificate, "ca": ca}, task_vars)
        copied = False if self.check_mode else self._copy_to_store(certificate)
        before = described(host["certificate"])
        after = {"sans": sans} if due and self.check_mode else described(certificate)
        return {
            "changed": bool(reasons) or copied,
            "reasons": reasons + (["copies in the store"] if copied and not reasons else []),
            "installed": bool(due),
            "sans": sans,
            "cert_path": str(self.store.machine_dir(self.name)),
            "expires": "" if due and self.check_mode else described(certificate).get("expires", ""),
            "client_expires": described(self._client_certificate()).get("expires", ""),
            "diff": {"before": before, "after": after} if due else {},
        }

    def _check_options(self) -> None:
        for option in ("validity_days", "client_validity_days"):
            if not 2 <= self.args[option] <= pki.CA_DAYS:
                raise MachineError(
                    f"{self.args[option]} days are no life for a certificate",
                    where=f"option {option}",
                    hint=f"Give 2 to {pki.CA_DAYS}",
                    code="invalid_option",
                )
        if not 0 < self.args["renew_fraction"] < 1:
            raise MachineError("renew_fraction lies between 0 and 1", where="option renew_fraction", code="invalid_option")

    # --- the store

    def _converge_store(self) -> list[str]:
        """Authority and client certificate; what was made, and why."""
        days, fraction = self.args["client_validity_days"], self.args["renew_fraction"]
        if self.check_mode and not self.authority.ca_path.exists():
            return ["authority: there is none", "client certificate: there is none"]
        reasons = ["authority: there is none"] if self.authority.ensure_ca() else []
        due = (
            self.authority.client_renewal(fraction) if self.check_mode else self.authority.ensure_client(days=days, renew_fraction=fraction)
        )
        if due:
            reasons.append(f"client certificate: {due}")
        left = (pki.ends(self.authority.certificate) - pki.now()).days
        if left < _CA_WARNING_DAYS:
            self.warnings.append(
                f"The certificate authority {self.authority.ca_path} ends in {left} days, and every certificate of it ends with it."
            )
        return reasons

    def _client_certificate(self) -> bytes:
        try:
            return files.read(self.authority.client_path, 1 << 20)
        except FileNotFoundError:
            return b""

    def _copy_to_store(self, certificate: str) -> bool:
        """The machine's folder as DOCKER_CERT_PATH points to it."""
        client = self.authority.client_files()
        folder = self.store.machine_dir(self.name)
        wanted = (
            ("ca.pem", client.ca, pki.MODE_PUBLIC),
            ("cert.pem", client.certificate, pki.MODE_PUBLIC),
            ("key.pem", client.key, pki.MODE_SECRET),
            ("server.pem", certificate.encode("utf-8"), pki.MODE_PUBLIC),
        )
        # Every file, also after the first that changed.
        written = [self.store.write(folder / filename, data, mode) for filename, data, mode in wanted]
        return True in written

    # --- the host

    def _on_host(self, more: dict[str, str], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Run the module on the host.

        Raises:
            MachineError: the module's own failure, with its code.
        """
        options = {key: self.args[key] for key in ("certificate_dir", "force")}
        result = self.module(MODULE, {"name": self.name, **options, **more}, task_vars)
        if result.get("failed"):
            failure = result.get("failure") or {}
            raise MachineError(
                str(result.get("msg", "The module failed")),
                why=str(result.get("module_stderr", "")).strip()[-500:],
                code=failure.get("code", "host_failed"),
            )
        return result

    def _check_authority_of_host(self, host: dict[str, t.Any]) -> None:
        """An engine that trusts a stranger's authority has clients that we would lock out.

        Raises:
            MachineError: ``foreign_authority``.
        """
        theirs = pki.load_certificates(host["ca"])
        if not theirs or self.args["takeover"]:
            return
        known = self._known_authorities()
        if any(certificate in known for certificate in theirs) or self._our_certificate(host["certificate"]):
            return
        raise MachineError(
            "The engine on this host belongs to another store",
            where=f"{self.args['certificate_dir']}/ca.pem on the host",
            why=f"it trusts the authority {theirs[0].subject.rfc4514_string()}, which is not this store's; its clients would be locked out",
            hint="Use the store that made it, or set docker_engine_takeover to true",
            code="foreign_authority",
        )

    def _known_authorities(self) -> list[t.Any]:
        """The store's authorities, now and when it last dealt with this machine."""
        found = []
        for path in (self.authority.ca_path, self.store.machine_dir(self.name) / "ca.pem"):
            try:
                found += pki.load_certificates(files.read(path, 1 << 20))
            except FileNotFoundError:
                continue
        return found

    def _our_certificate(self, certificate: str) -> bool:
        """Whether the engine has the certificate that this store gave it, by whatever authority."""
        theirs = pki.load_certificates(certificate)
        try:
            ours = pki.load_certificates(files.read(self.store.machine_dir(self.name) / "server.pem", 1 << 20))
        except FileNotFoundError:
            return False
        return bool(theirs) and theirs == ours

    def _server_reason(self, host: dict[str, t.Any], sans: list[str]) -> str:
        """Why the engine's files have to be replaced, or an empty string."""
        if self.args["force"]:
            return "forced"
        if host["key_problem"]:
            return f"its key: {host['key_problem']}"
        if not self.authority.ca_path.exists():
            return "there is no authority yet"
        public = pki.request_public_key(host["csr"])
        issuer, fraction = self.authority.certificate, self.args["renew_fraction"]
        reason = pki.leaf_needs_renewal(host["certificate"], issuer, sans, public, renew_fraction=fraction)
        if reason:
            return reason
        if host["ca"].encode() != self.authority.ca_pem:
            return "the engine's ca.pem differs from the store's"
        return "" if host["modes_right"] else "modes of the engine's files"
