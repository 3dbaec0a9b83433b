"""The import rule of the house, read from the source: who may import whom, inside and outside.

enlist_installer -> enlist_secondary -> enlist <- enlist_primary, and of a client `enlist` without `enlist.runtime` asks
nothing but gRPC, protobuf and cryptography.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Every folder that may stand at the top, besides those that start with a dot.
FOLDERS = {"docs", "installer", "primary", "protos", "scripts", "secondary", "tests"}
BUILD_OUTPUT = {"build", "dist"}

# Import root -> the one package in it.
HOUSE = {
    "protos": "enlist",
    "primary": "enlist_primary",
    "secondary": "enlist_secondary",
    "installer": "enlist_installer",
}

CLIENT = {"cryptography", "google", "grpc", "grpc_status"}
DAEMON = CLIENT | {"cronsim", "msgspec"}

# Dotted prefix -> what its modules may import besides the standard library and themselves. The longest prefix counts.
ALLOWED: dict[str, set[str]] = {
    "enlist": CLIENT,
    "enlist.runtime": {"enlist"} | DAEMON,
    "enlist_primary": {"enlist", "grpc_health", "grpc_reflection", "sqlite_utils"} | DAEMON,
    "enlist_secondary": {"enlist", "jinja2"} | DAEMON,
    "enlist_installer": {"enlist", "enlist_secondary", "dns", "prompt_toolkit", "questionary"} | DAEMON,
}


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def longest(name: str, prefixes: set[str]) -> str | None:
    return max((prefix for prefix in prefixes if within(name, prefix)), key=len, default=None)


def permitted(importer: str, imported: str) -> bool:
    """Whether module `importer` may import module `imported`."""
    if imported.split(".")[0] in sys.stdlib_module_names:
        return True
    home = longest(importer, set(ALLOWED))
    if home is None:
        return False
    # A prefix is also a border: enlist.names is at home in `enlist`, enlist.runtime is not.
    if longest(imported, set(ALLOWED)) == home:
        return True
    return longest(imported, ALLOWED[home]) is not None


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of each import at any depth; a name the source does not tell is `?` and the reason."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(level=level) if level > 0:
                yield node.lineno, "? relative"
            case ast.ImportFrom(module=str(module), names=names):
                # `from enlist import runtime` imports enlist.runtime: judge the longer name.
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in names)
            case ast.Call(func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module")):
                match node.args:
                    case [ast.Constant(value=str(name))] if not name.startswith("."):
                        yield node.lineno, name
                    case _:
                        yield node.lineno, "? computed"


def violations(root: Path, package: str) -> list[str]:
    """What breaks the rule in `package`, a folder in `root`: one `file:line: importer imports name` per import."""
    found = []
    for file in sorted((root / package).rglob("*.py")):
        module = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for line, name in imports(ast.parse(file.read_bytes(), str(file))):
            if not permitted(module, name):
                found.append(f"{file.relative_to(root)}:{line}: {module} imports {name}")
    return found


@pytest.mark.parametrize(("root", "package"), HOUSE.items())
def test_imports_run_one_way(root: str, package: str) -> None:
    assert (ROOT / root / package / "__init__.py").is_file()
    assert violations(ROOT / root, package) == []


@pytest.mark.parametrize("root", HOUSE)
def test_an_import_root_holds_one_package(root: str) -> None:
    packages = {path.name for path in (ROOT / root).iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert packages == {HOUSE[root]}


def test_every_top_level_folder_is_a_known_one() -> None:
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert folders - FOLDERS - BUILD_OUTPUT == set()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("enlist.names", "import enlist_primary"),
        ("enlist.names", "from enlist import runtime"),
        ("enlist.names", "from enlist.runtime.config import load"),
        ("enlist.names", "import msgspec"),
        ("enlist.runtime.config", "import enlist_secondary.config"),
        ("enlist_primary.app", "from enlist_secondary import config"),
        ("enlist_primary.app", "import questionary"),
        ("enlist_secondary.link", "import enlist_installer"),
        ("enlist_secondary.link", "def late():\n    from enlist_primary.model import servers"),
        ("enlist_secondary.link", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import enlist_primary"),
        ("enlist_installer.plan", "import sqlite_utils"),
        ("enlist_installer.plan", "import enlist_primary.store as store"),
        ("enlist_secondary.link", "from . import config"),
        ("enlist_secondary.link", "import importlib\nimportlib.import_module('enlist_primary')"),
        ("enlist_secondary.link", "import importlib\nimportlib.import_module('.config', __package__)"),
        ("enlist_secondary.link", "__import__('enlist_' + 'primary')"),
        ("enlist_secondary", "import enlistment"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, module: str, source: str) -> None:
    plant(tmp_path, module, source)
    assert len(violations(tmp_path, module.split(".")[0])) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("enlist.names", "import hashlib, grpc.aio\nfrom google.protobuf import message\nimport enlist.reasons"),
        ("enlist.runtime.config", "import msgspec\nfrom enlist import names\nfrom enlist.runtime import files"),
        ("enlist_primary.app", "from enlist.runtime import config\nfrom enlist_primary.store import sqlite"),
        ("enlist_secondary.link", "import enlist.channel\nimport enlist_secondary.state"),
        ("enlist_installer.wizard", "import questionary, dns.asyncresolver\nfrom enlist_secondary import checks"),
        ("enlist_installer.cli", "import importlib\nimportlib.import_module('enlist_installer.wizard')"),
    ],
)
def test_what_the_rule_allows_is_not_found(tmp_path: Path, module: str, source: str) -> None:
    plant(tmp_path, module, source)
    assert violations(tmp_path, module.split(".")[0]) == []


def plant(root: Path, module: str, source: str) -> None:
    """A source tree under `root` in which `module` reads `source`."""
    parts = module.split(".")
    file = root.joinpath(*parts, "__init__.py") if len(parts) == 1 else root.joinpath(*parts).with_suffix(".py")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
