# Copyright (c) 2026 The dockyard.machine authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of docs/architecture.md that can be read off the source."""

from __future__ import annotations

import ast
import pathlib
import re
import typing as t

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
MAX_LINES = 60
HEADER = (
    "# Copyright (c) 2026 The dockyard.machine authors\n"
    "# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)\n"
    "# SPDX-License-Identifier: GPL-3.0-or-later\n"
)
FORBIDDEN = ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "ssl._create_unverified_context")
FOLDERS = ("plugins", "tests", "molecule", "benchmarks")
SKIPPED = {".git", ".build", ".venv", "__pycache__", "output"}


def files(folder: pathlib.Path, *suffixes: str) -> list[pathlib.Path]:
    found = (path for path in folder.rglob("*") if path.suffix in suffixes and path.is_file())
    return sorted(path for path in found if not SKIPPED & set(path.relative_to(ROOT).parts))


PYTHON = [path for folder in FOLDERS for path in files(ROOT / folder, ".py")]
PRODUCT = files(PLUGINS, ".py")
MODULES = files(PLUGINS / "modules", ".py")


def short(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: pathlib.Path) -> t.Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def documentation(path: pathlib.Path) -> dict[str, t.Any]:
    """The DOCUMENTATION of a plugin."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(name, ast.Name) and name.id == "DOCUMENTATION" for name in node.targets):
            loaded = yaml.safe_load(ast.literal_eval(node.value))
            assert isinstance(loaded, dict)
            return loaded
    raise AssertionError(f"{short(path)} has no DOCUMENTATION")


def handled(handler: ast.ExceptHandler) -> list[str]:
    """What an except clause catches; an empty name is a bare except."""
    if handler.type is None:
        return [""]
    parts = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return [getattr(part, "id", getattr(part, "attr", "?")) for part in parts]


def passes_on(handler: ast.ExceptHandler) -> bool:
    """Whether a clause only cleans up: ``except BaseException`` that ends by raising what it caught."""
    last = handler.body[-1]
    return handled(handler) == ["BaseException"] and isinstance(last, ast.Raise) and last.exc is None


def test_there_is_something_to_judge() -> None:
    assert len(PRODUCT) >= 20
    assert len(MODULES) >= 3


@pytest.mark.parametrize("path", PYTHON, ids=short)
def test_header(path: pathlib.Path) -> None:
    text = path.read_text(encoding="utf-8")
    # A script may begin with its interpreter.
    body = text.split("\n", 1)[1] if text.startswith("#!") else text
    assert body.startswith(HEADER)
    assert "from __future__ import annotations" in text


@pytest.mark.parametrize("path", [path for folder in (ROOT, ROOT / ".ci") for path in files(folder, ".sh")], ids=short)
def test_header_of_scripts(path: pathlib.Path) -> None:
    assert HEADER in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PRODUCT, ids=short)
def test_functions_are_short_and_typed(path: pathlib.Path) -> None:
    wrong = []
    for function in functions(path):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > MAX_LINES:
            wrong.append(f"{short(path)}:{function.lineno} {function.name} has {lines} lines, allowed are {MAX_LINES}")
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs, function.args.vararg, function.args.kwarg]
        untyped = [item.arg for item in arguments if item and item.annotation is None and item.arg not in ("self", "cls")]
        if untyped or function.returns is None:
            wrong.append(f"{short(path)}:{function.lineno} {function.name} has no type for {untyped or 'its result'}")
    assert wrong == []


@pytest.mark.parametrize("path", PRODUCT, ids=short)
def test_no_broad_except(path: pathlib.Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    handlers = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    broad = [node.lineno for node in handlers if {"", "Exception", "BaseException"} & set(handled(node)) and not passes_on(node)]
    assert broad == [], f"{short(path)} catches everything on these lines"


@pytest.mark.parametrize("path", PRODUCT, ids=short)
def test_no_shell_and_no_check_switched_off(path: pathlib.Path) -> None:
    wrong = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        shell = isinstance(node, ast.keyword) and node.arg in ("shell", "use_unsafe_shell")
        if shell and not (isinstance(node.value, ast.Constant) and node.value.value is False):
            wrong.append(f"{short(path)}:{node.value.lineno} uses a shell")
        if isinstance(node, ast.Call) and ast.unparse(node.func) in FORBIDDEN:
            wrong.append(f"{short(path)}:{node.lineno} calls {ast.unparse(node.func)}")
    assert wrong == []


@pytest.mark.parametrize(
    "path", [path for folder in ("plugins", "roles", "playbooks") for path in files(ROOT / folder, ".py", ".yml", ".j2")], ids=short
)
def test_host_keys_are_checked(path: pathlib.Path) -> None:
    found = re.findall(
        r"StrictHostKeyChecking[= ]+no\b|UserKnownHostsFile[= ]+/dev/null|host_key_checking\s*[:=]\s*false",
        path.read_text(encoding="utf-8"),
        re.I,
    )
    assert found == []


def test_layers() -> None:
    """Who may import whom (docs/architecture.md): drivers know no store and not each other; store and pki know no drivers."""
    allowed = {"driver", "machine", "errors", "timing", "cloud"}
    wrong = []
    for path in PRODUCT:
        driver = path.parent.name == "drivers"
        if not driver and path.stem not in ("store", "pki"):
            continue
        for name in re.findall(r"plugins\.module_utils\.([\w.]+) import", path.read_text(encoding="utf-8")):
            helper = name.split("_")[0] == path.stem or name in ("cloud_init", "ssh_keys", "files")
            if (driver and name not in allowed and not helper) or (not driver and name.startswith("driver")):
                wrong.append(f"{short(path)} imports {name}")
    assert wrong == []


def test_action_group_holds_the_drivers_and_the_dispatcher() -> None:
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    expected = sorted(path.stem for path in MODULES if path.stem == "machine" or path.stem.endswith("_machine"))
    assert sorted(runtime["action_groups"]["machine"]) == expected
    for path in MODULES:
        fragments = documentation(path).get("extends_documentation_fragment", [])
        says_so = "dockyard.machine.attributes.actiongroup" in ([fragments] if isinstance(fragments, str) else fragments)
        assert says_so == (path.stem in expected), f"{short(path)}: attributes.actiongroup"


@pytest.mark.parametrize("path", MODULES, ids=short)
def test_modules_say_who_what_and_since_when(path: pathlib.Path) -> None:
    text = documentation(path)
    assert text["module"] == path.stem
    assert re.fullmatch(r"\d+\.\d+\.\d+", str(text["version_added"]))
    assert "The dockyard.machine authors (@dockyard)" in text["author"]
    assert {"check_mode", "diff_mode"} <= set(text["attributes"])


def test_requirements_have_no_upper_bound() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line.strip() and not line.startswith("#")]
    assert wanted
    assert [line for line in wanted if not re.fullmatch(r"[A-Za-z0-9_.-]+(>=[0-9.]+)?", line)] == []


def test_readme_has_only_full_addresses() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith(("https://", "#"))] == []
    wanted = ("Description", "Requirements", "Installation", "Use cases", "Testing", "Support", "Release notes and roadmap")
    missing = [title for title in (*wanted, "Related information", "License information") if f"\n## {title}\n" not in text]
    assert missing == []
