# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every fake provider has: an HTTP server on loopback, faults on demand, lagging reads, a request log, a control API.

A provider subclasses :class:`Fake` and writes one method an API call, marked with :func:`route`; a layer in front of
another simulator overrides :meth:`Fake.respond` instead. In a test the fake runs in threads of the test's process
(``with MyFake() as fake: fake.url``); for a playbook it runs as a process of its own (:func:`main`), which prints
``{"url": ..., "port": ...}`` on one line, takes orders under ``/_control/`` and ends when its deadline passes.

Faults (:class:`Fault`, :meth:`Fake.arm`) are used up one request each:

========== ==================================================================================================
kind        what the client sees
========== ==================================================================================================
throttle    429 with ``Retry-After: retry_after``, no effect
error       ``status`` (503), no effect
error_after ``status`` (500), though the effect happened
cut_before  the connection is cut, no effect
cut_after   the connection is cut after the effect
hold_after  no answer after the effect until :meth:`Fake.release`; for killing the client there
hang        no answer, no effect, for ``seconds``
anything    a provider asks for it with :meth:`Fake.take`: ``quota``, ``capacity``, ``operation_error`` ...
========== ==================================================================================================

Lag (:attr:`Fake.lag`, seconds) delays what reads of a :class:`Shelf` show; latency (:attr:`Fake.latency`) delays answers.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import fnmatch
import http.server
import json
import re
import socket
import sys
import threading
import time
import typing as t
import urllib.parse

WIRE_FAULTS = ("throttle", "error", "error_after", "cut_before", "cut_after", "hold_after", "hang")

V = t.TypeVar("V")
F = t.TypeVar("F", bound=t.Callable[..., t.Any])


@dataclasses.dataclass
class Request:
    """One request as the client sent it."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: t.Mapping[str, str]
    body: bytes
    operation: str = ""
    """The name of the API call, as faults and the log name it."""
    url: str = ""
    """Path and query as they were sent."""

    def json(self) -> t.Any:
        """The body as JSON.

        Raises:
            Refusal: 400 when it is none.
        """
        try:
            return json.loads(self.body or b"{}")
        except ValueError as error:
            raise Refusal(400, "bad_request", f"the body is no JSON: {error}") from error

    def first(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        return self.query.get(name, [default])[0]


@dataclasses.dataclass
class Response:
    """What is answered; a dict or list becomes JSON."""

    status: int = 200
    body: t.Any = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)

    def encoded(self) -> tuple[bytes, dict[str, str]]:
        """Body and headers as they go out."""
        headers = dict(self.headers)
        if self.body is None:
            return b"", headers
        if isinstance(self.body, bytes):
            return self.body, headers
        if isinstance(self.body, str):
            return self.body.encode(), headers
        headers.setdefault("Content-Type", "application/json; charset=utf-8")
        return json.dumps(self.body).encode(), headers


class Refusal(Exception):
    """An answer that is an error; :meth:`Fake.error` gives it the provider's shape."""

    def __init__(self, status: int, code: str, message: str, headers: t.Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


class Cut(Exception):
    """The connection ends without an answer."""


@dataclasses.dataclass
class Fault:
    """Something that goes wrong; see the module's table."""

    kind: str
    on: str = "*"
    """A glob over operation names, or ``read`` or ``write``."""
    times: int = 1
    """How many requests it hits; 0 means all of them."""
    skip: int = 0
    """How many matching requests pass first."""
    status: int = 503
    retry_after: int = 1
    seconds: float = 30.0
    data: dict[str, t.Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Entry:
    """One line of the request log."""

    number: int
    operation: str
    method: str
    path: str
    write: bool
    body: str = ""
    status: int = 0
    """0 while there is no answer, or when there never was one."""
    fault: str = ""
    at: float = dataclasses.field(default_factory=time.monotonic)


class Route(t.NamedTuple):
    """An API call of a fake."""

    method: str
    expression: re.Pattern[str]
    name: str
    function: t.Callable[..., t.Any]


def route(method: str, pattern: str, name: str = "") -> t.Callable[[F], F]:
    """Mark a method of a fake as the answer to ``METHOD pattern``.

    Args:
        method: the HTTP method.
        pattern: a path; ``{name}`` matches one segment, ``{name:path}`` any number, and both are given as keyword arguments.
        name: the operation's name; the method's name unless given.
    """

    def mark(function: F) -> F:
        found = list(getattr(function, "routes", []))
        found.append((method, pattern, name or function.__name__))
        function.routes = found  # type: ignore[attr-defined]
        return function

    return mark


def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)(:path)?\}", pattern)
    expression = re.escape(parts[0])
    for index in range(1, len(parts), 3):
        expression += f"(?P<{parts[index]}>{'.+' if parts[index + 1] else '[^/]+'})" + re.escape(parts[index + 2])
    return re.compile(expression)


class Shelf(t.Generic[V]):
    """A dictionary whose reads lag behind its writes by the fake's ``lag``, as eventually consistent services do."""

    def __init__(self, fake: Fake) -> None:
        self._fake = fake
        self._history: dict[str, list[tuple[float, V | None]]] = {}

    def put(self, key: str, value: V) -> None:
        """Write."""
        self._write(key, copy.deepcopy(value))

    def remove(self, key: str) -> None:
        """Delete; nothing there is fine."""
        if self.get(key, fresh=True) is not None:
            self._write(key, None)

    def get(self, key: str, *, fresh: bool = False) -> V | None:
        """Read a copy; ``fresh`` sees the last write at once."""
        horizon = time.monotonic() - (0 if fresh else self._fake.lag)
        for written, value in reversed(self._history.get(key, [])):
            if written <= horizon:
                return copy.deepcopy(value)
        return None

    def items(self, *, fresh: bool = False) -> list[tuple[str, V]]:
        """All that can be seen, in the order of their first write."""
        seen = ((key, self.get(key, fresh=fresh)) for key in list(self._history))
        return [(key, value) for key, value in seen if value is not None]

    def values(self, *, fresh: bool = False) -> list[V]:
        """See :meth:`items`."""
        return [value for dummy, value in self.items(fresh=fresh)]

    def _write(self, key: str, value: V | None) -> None:
        self._history.setdefault(key, []).append((time.monotonic(), value))


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "fake"
    disable_nagle_algorithm = True
    timeout = 60
    fake: Fake

    def log_message(self, format: str, *args: t.Any) -> None:
        """Quiet: the log is an object."""

    def _serve(self) -> None:
        split = urllib.parse.urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        request = Request(
            method=self.command,
            path=urllib.parse.unquote(split.path),
            query=urllib.parse.parse_qs(split.query, keep_blank_values=True),
            headers=self.headers,
            body=self.rfile.read(length),
            url=self.path,
        )
        try:
            response = self.fake.serve(request)
        except Cut:
            self.close_connection = True
            try:
                self.connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            return
        body, headers = response.encoded()
        try:
            self.send_response(response.status)
            for key, value in headers.items():
                self.send_header(key, value)
            if response.status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD" and response.status != 204:
                self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = _serve


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        """A client that was killed is no news; anything else is a bug of the fake."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class Fake:
    """One provider's API on a loopback port."""

    locked = True
    """Answers are made one at a time; a layer in front of another service sets this to False."""

    def __init__(self) -> None:
        self.latency = 0.0
        self.lag = 0.0
        self.log: list[Entry] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self._guard = threading.Lock()
        self._released = threading.Event()
        self._held = threading.Event()
        self._server: _Server | None = None
        self._routes = self._collect()
        self.reset()

    # --- for providers -----------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget all state; a provider makes its empty shelves here and calls this first."""
        with self._guard:
            self.latency = 0.0
            self.lag = 0.0
            self.log.clear()
            self.faults.clear()
        self.release()
        self._released = threading.Event()
        self._held = threading.Event()

    def error(self, status: int, code: str, message: str) -> t.Any:
        """An error's body in the provider's shape."""
        return {"id": code, "message": message}

    def operation(self, request: Request) -> str:
        """The name of the API call; found by the routes unless a provider knows better."""
        for candidate in self._routes:
            if candidate.method == request.method and candidate.expression.fullmatch(request.path):
                return candidate.name
        return f"{request.method} {request.path}"

    def is_write(self, request: Request) -> bool:
        """Whether the request changes something."""
        return request.method not in ("GET", "HEAD")

    def respond(self, request: Request) -> Response:
        """The answer when nothing goes wrong; calls the route's method."""
        for candidate in self._routes:
            match = candidate.expression.fullmatch(request.path) if candidate.method == request.method else None
            if match:
                answer = candidate.function(request, **match.groupdict())
                return answer if isinstance(answer, Response) else Response(200, answer)
        raise Refusal(404, "not_found", f"no such call: {request.method} {request.path}")

    def state(self) -> t.Any:
        """What ``GET /_control/state`` shows, JSON types."""
        return {}

    def control(self, verb: str, data: dict[str, t.Any]) -> t.Any:
        """A provider's own orders, ``POST /_control/VERB`` with a JSON object (``delete_outside``, ``change_address`` ...)."""
        raise Refusal(404, "not_found", f"no such order: {verb}")

    def take(self, kind: str, operation: str, *, write: bool = True) -> Fault | None:
        """The armed fault of this kind for this call, used up; None when there is none."""
        with self._guard:
            for fault in self.faults:
                if fault.kind != kind or not self._hits(fault, operation, write):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                if fault.times == 1:
                    self.faults.remove(fault)
                elif fault.times > 1:
                    fault.times -= 1
                return fault
        return None

    # --- for tests ---------------------------------------------------------------------------------------------

    def arm(self, kind: str, **settings: t.Any) -> Fault:
        """Arm a fault; see :class:`Fault`. Kinds ``lag`` and ``latency`` set ``seconds`` for everything that follows."""
        fault = Fault(kind, **settings)
        with self._guard:
            if kind in ("lag", "latency"):
                setattr(self, kind, fault.seconds)
            else:
                self.faults.append(fault)
        return fault

    def disarm(self) -> None:
        """Nothing goes wrong any more."""
        with self._guard:
            self.faults.clear()
            self.lag = self.latency = 0.0

    def wait_held(self, timeout: float) -> bool:
        """Wait until a ``hold_after`` holds a request; False when none came in time."""
        return self._held.wait(timeout)

    def release(self) -> None:
        """Let held requests go (their connections are cut)."""
        self._released.set()

    def calls(self, pattern: str = "*", *, write: bool | None = None) -> list[Entry]:
        """Requests so far whose operation matches."""
        with self._guard:
            found = list(self.log)
        return [entry for entry in found if fnmatch.fnmatchcase(entry.operation, pattern) and write in (None, entry.write)]

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``"""
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """The port, once it is started."""
        if self._server is None:
            raise RuntimeError("the fake is not started")
        return int(self._server.server_address[1])

    def start(self, port: int = 0) -> str:
        """Listen on loopback; returns the URL."""
        handler = type("Handler", (_Handler,), {"fake": self})
        self._server = _Server(("127.0.0.1", port), handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self.url

    def stop(self) -> None:
        """Stop listening."""
        self.release()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Fake:
        self.start()
        return self

    def __exit__(self, *dummy: object) -> None:
        self.stop()

    # --- one request -------------------------------------------------------------------------------------------

    def serve(self, request: Request) -> Response:
        """Answer one request, with whatever shall go wrong.

        Raises:
            Cut: when there shall be no answer.
        """
        if request.path.startswith("/_control/"):
            return self._control(request)
        request.operation = self.operation(request)
        write = self.is_write(request)
        with self._guard:
            entry = Entry(len(self.log) + 1, request.operation, request.method, request.url, write, request.body.decode(errors="replace"))
            self.log.append(entry)
        if self.latency:
            time.sleep(self.latency)
        fault = next(filter(None, (self.take(kind, request.operation, write=write) for kind in WIRE_FAULTS)), None)
        entry.fault = fault.kind if fault else ""
        response = self._before(fault) or self._answer(request)
        self._after(fault, entry)
        if fault and fault.kind == "error_after":
            response = self._refused(Refusal(fault.status, "server_error", "Server Error"))
        entry.status = response.status
        return response

    def _before(self, fault: Fault | None) -> Response | None:
        if fault is None:
            return None
        if fault.kind == "throttle":
            return self._refused(Refusal(429, "too_many_requests", "API Rate limit exceeded.", {"Retry-After": str(fault.retry_after)}))
        if fault.kind == "error":
            return self._refused(Refusal(fault.status, "server_error", "Server Error"))
        if fault.kind == "hang":
            self._released.wait(fault.seconds)
        if fault.kind in ("hang", "cut_before"):
            raise Cut
        return None

    def _after(self, fault: Fault | None, entry: Entry) -> None:
        if fault is None or fault.kind not in ("cut_after", "hold_after"):
            return
        if fault.kind == "hold_after":
            released = self._released
            self._held.set()
            released.wait(fault.seconds)
        raise Cut

    def _answer(self, request: Request) -> Response:
        try:
            if not self.locked:
                return self.respond(request)
            with self.lock:
                return self.respond(request)
        except Refusal as refusal:
            return self._refused(refusal)

    def _refused(self, refusal: Refusal) -> Response:
        return Response(refusal.status, self.error(refusal.status, refusal.code, refusal.message), refusal.headers)

    def _control(self, request: Request) -> Response:
        verb = request.path.removeprefix("/_control/")
        try:
            if request.method == "GET" and verb == "log":
                return Response(200, [dataclasses.asdict(entry) for entry in self.calls(request.first("operation", "*"))])
            if request.method == "GET" and verb == "state":
                with self.lock:
                    return Response(200, self.state())
            if request.method != "POST":
                raise Refusal(404, "not_found", f"no such order: {request.method} {verb}")
            data = request.json()
            if verb == "reset":
                self.reset()
            elif verb == "disarm":
                self.disarm()
            elif verb == "faults":
                self.arm(data.pop("kind"), **data)
            else:
                with self.lock:
                    return Response(200, self.control(verb, data))
            return Response(200, {})
        except Refusal as refusal:
            return self._refused(refusal)

    def _collect(self) -> list[Route]:
        found = []
        for attribute in dir(type(self)):
            for method, pattern, name in getattr(getattr(type(self), attribute), "routes", []):
                found.append((method, pattern, name, getattr(self, attribute)))
        # A fixed segment goes before a placeholder.
        found.sort(key=lambda item: re.sub(r"\{[^}]*\}", "~", item[1]))
        return [Route(method, _expression(pattern), name, function) for method, pattern, name, function in found]

    @staticmethod
    def _hits(fault: Fault, operation: str, write: bool) -> bool:
        if fault.on in ("read", "write"):
            return write == (fault.on == "write")
        return fnmatch.fnmatchcase(operation, fault.on)


def main(fake: Fake, arguments: t.Sequence[str] | None = None) -> int:
    """Serve until the deadline; prints one line of JSON first."""
    parser = argparse.ArgumentParser(description=(type(fake).__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--deadline", type=float, default=600, help="seconds until it ends by itself")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--lag", type=float, default=0.0, help="seconds until reads show a write")
    options = parser.parse_args(arguments)
    fake.latency, fake.lag = options.latency, options.lag
    fake.start(options.port)
    print(json.dumps({"url": fake.url, "port": fake.port}), flush=True)
    try:
        time.sleep(options.deadline)
    except KeyboardInterrupt:
        pass
    fake.stop()
    return 0
