"""The import rule of the house, read from the source: what each folder may import, inside and outside.

enlist_installer -> enlist_secondary -> enlist <- enlist_primary. No package imports what another one keeps private.
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
CONTRACT = {"enlist", "enlist.v1"}
LINKED = CONTRACT | {"enlist.link", "enlist.transport", "enlist.runtime"}

# A folder, or a module that has a row of its own -> the rows and the libraries that it may import besides the standard library and
# itself. A module belongs to the longest row that its name begins with; each row is a border for those above and below it.
ALLOWED: dict[str, set[str]] = {
    # A client needs these four and nothing but gRPC, protobuf and cryptography.
    "enlist": {"enlist.v1"} | CLIENT,
    "enlist.v1": {"google", "grpc"},
    "enlist.link": CONTRACT | {"cryptography", "google"},
    "enlist.transport": CONTRACT | CLIENT,
    "enlist.runtime": {"enlist", "cronsim", "msgspec"},
    # The primary. Never: model imports another folder; store operations; operations what lives in process memory; messages links or
    # federation; ingest links; links, federation or controllers rpc.
    "enlist_primary.model": CONTRACT | {"enlist.runtime"},
    "enlist_primary.store": CONTRACT | {"enlist.runtime", "enlist_primary.model", "sqlite_utils"},
    "enlist_primary.operations": CONTRACT | {"enlist.runtime", "enlist_primary.model", "enlist_primary.store"},
    "enlist_primary.config": {"enlist", "enlist.runtime", "msgspec"},
    "enlist_primary.datafolder": {"enlist", "enlist.runtime"},
    "enlist_primary.authority": CONTRACT | {"enlist.runtime", "enlist_primary.datafolder", "cryptography"},
    "enlist_primary.changes": {"enlist", "enlist.runtime", "enlist_primary.model", "enlist_primary.store"},
    "enlist_primary.messages": CONTRACT | {"enlist_primary.model", "enlist_primary.store", "google"},
    "enlist_primary.ingest": {
        "enlist",
        "enlist.runtime",
        "enlist_primary.model",
        "enlist_primary.operations",
        "enlist_primary.store",
    },
    "enlist_primary.links": LINKED
    | {
        "enlist_primary.authority",
        "enlist_primary.changes",
        "enlist_primary.federation",
        "enlist_primary.ingest",
        "enlist_primary.messages",
        "enlist_primary.model",
        "enlist_primary.store",
        "grpc",
    },
    "enlist_primary.federation": LINKED
    | {
        "enlist_primary.authority",
        "enlist_primary.changes",
        "enlist_primary.ingest",
        "enlist_primary.links",
        "enlist_primary.messages",
        "enlist_primary.model",
        "enlist_primary.operations",
        "enlist_primary.store",
        "google",
        "grpc",
    },
    "enlist_primary.controllers": {
        "enlist",
        "enlist.runtime",
        "enlist_primary.changes",
        "enlist_primary.links",
        "enlist_primary.model",
        "enlist_primary.operations",
        "enlist_primary.store",
    },
    "enlist_primary.rpc": LINKED
    | {
        "enlist_primary.authority",
        "enlist_primary.changes",
        "enlist_primary.config",
        "enlist_primary.controllers",
        "enlist_primary.federation",
        "enlist_primary.ingest",
        "enlist_primary.links",
        "enlist_primary.messages",
        "enlist_primary.model",
        "enlist_primary.operations",
        "enlist_primary.store",
        "grpc_health",
    }
    | CLIENT,
    "enlist_primary": LINKED  # what remains at the top is wiring: app, founding, serving
    | {
        "enlist_primary.authority",
        "enlist_primary.changes",
        "enlist_primary.config",
        "enlist_primary.controllers",
        "enlist_primary.datafolder",
        "enlist_primary.federation",
        "enlist_primary.ingest",
        "enlist_primary.links",
        "enlist_primary.model",
        "enlist_primary.operations",
        "enlist_primary.rpc",
        "enlist_primary.store",
        "grpc",
        "grpc_health",
        "grpc_reflection",
    },
    "enlist_primary.cli": CONTRACT
    | {"enlist.runtime", "enlist_primary", "enlist_primary.config", "enlist_primary.datafolder", "enlist_primary.model", "grpc"},
    # The secondary, whose modules have no folders yet, and what sets it up.
    "enlist_secondary.config": {"enlist", "enlist.runtime", "enlist_secondary.handlers", "msgspec"},
    "enlist_secondary.handlers": {"enlist", "enlist.runtime", "enlist_secondary.config", "jinja2", "msgspec"},
    "enlist_secondary.connection": LINKED | {"enlist_secondary", "enlist_secondary.federation", "grpc"},
    "enlist_secondary.federation": LINKED | {"enlist_secondary", "grpc"},
    "enlist_secondary": LINKED
    | {
        "enlist_secondary.config",
        "enlist_secondary.connection",
        "enlist_secondary.federation",
        "enlist_secondary.handlers",
        "cryptography",
        "google",
        "grpc",
        "msgspec",
    },
    "enlist_installer": CONTRACT
    | {
        "enlist.runtime",
        "enlist.transport",
        "enlist_secondary",
        "enlist_secondary.config",
        "dns",
        "msgspec",
        "prompt_toolkit",
        "questionary",
    },
}

# (module, module that it imports all the same): each goes when what the comment says has come.
UNTIL: set[tuple[str, str]] = set()

# (importer, private name of another package): until the test speaks to the public side.
PRIVATE_UNTIL: set[tuple[str, str]] = set()


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def row(name: str) -> str | None:
    """The row of ALLOWED that a module belongs to."""
    return max((each for each in ALLOWED if within(name, each)), key=len, default=None)


def permitted(importer: str, imported: str) -> bool:
    """Whether the table lets module `importer` import `imported`, a module or a name in one."""
    top = imported.split(".")[0]
    if top in sys.stdlib_module_names:
        return True
    home = row(importer)
    if home is None:
        return False
    if top not in HOUSE.values():
        return top in ALLOWED[home]
    return row(imported) in {home, *ALLOWED[home]}


def excepted(importer: str, imported: str) -> tuple[str, str] | None:
    """The exception under which `importer` imports `imported`."""
    return next((each for each in UNTIL if each[0] == importer and within(imported, each[1])), None)


def private(importer: str, imported: str) -> bool:
    """Whether `imported` is private to a package that `importer` is not in."""
    parts = imported.split(".")
    if parts[0] == importer.split(".")[0]:
        return False
    return any(part.startswith("_") and not part.endswith("__") for part in parts)


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


def module_of(file: Path, root: Path) -> str:
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imported_in(root: Path, folder: str) -> Iterator[tuple[str, str, str]]:
    """(`file:line`, importer, imported) of each import in a folder of `root`."""
    for file in sorted((root / folder).rglob("*.py")):
        for line, name in imports(ast.parse(file.read_bytes(), str(file))):
            yield f"{file.relative_to(root)}:{line}", module_of(file, root), name


def violations(root: Path, package: str) -> list[str]:
    """What breaks the rule in `package`, a folder in `root`: one `file:line: importer imports name` per import."""
    return [
        f"{place}: {importer} imports {name}"
        for place, importer, name in imported_in(root, package)
        if not permitted(importer, name) and not excepted(importer, name)
    ]


@pytest.mark.parametrize(("root", "package"), HOUSE.items())
def test_imports_run_one_way(root: str, package: str) -> None:
    assert (ROOT / root / package / "__init__.py").is_file()
    assert violations(ROOT / root, package) == []


def test_every_folder_of_a_package_has_its_row() -> None:
    found = {
        module_of(file, ROOT / root) for root, package in HOUSE.items() for file in (ROOT / root / package).rglob("__init__.py")
    }
    assert found - set(ALLOWED) == set()


def test_the_table_names_only_its_own_rows_and_libraries() -> None:
    named = {name for allowed in ALLOWED.values() for name in allowed}
    assert {name for name in named if name.split(".")[0] in HOUSE.values()} <= set(ALLOWED)


def test_every_exception_is_still_needed() -> None:
    found = {
        excepted(importer, name)
        for root, package in HOUSE.items()
        for _, importer, name in imported_in(ROOT / root, package)
        if not permitted(importer, name)
    }
    assert found - {None} == UNTIL


def test_no_private_name_of_another_package_is_imported() -> None:
    folders = [*((ROOT / root, package) for root, package in HOUSE.items()), (ROOT, "tests"), (ROOT, "scripts"), (ROOT, "docs")]
    found = {
        (importer, name)
        for root, folder in folders
        for _, importer, name in imported_in(root, folder)
        if private(importer, name) and "_pb2" not in importer  # the generated stubs import as their generator decides
    }
    assert found == PRIVATE_UNTIL


@pytest.mark.parametrize(
    ("importer", "imported", "expected"),
    [
        ("enlist_primary.rpc.health", "grpc_health.v1._async.HealthServicer", True),
        ("tests.primary.test_link", "enlist_primary.rpc.link._Body", True),
        ("enlist_primary.app", "_socket", True),
        ("enlist_primary.app", "enlist_primary.rpc._listeners", False),
        ("enlist_primary.app", "__future__.annotations", False),
        ("enlist_primary.app", "enlist.__version__", False),
        ("enlist_primary.rpc.health", "grpc_health.v1.health.aio", False),
    ],
)
def test_a_private_import_is_told_from_a_public_one(importer: str, imported: str, expected: bool) -> None:
    assert private(importer, imported) is expected


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
        ("enlist_primary.model.servers", "from enlist_primary.store import servers"),
        ("enlist_primary.store.servers", "from enlist_primary.operations import servers"),
        ("enlist_primary.operations.servers", "from enlist_primary.links.registry import Reach"),
        ("enlist_primary.messages.policies", "from enlist_primary.links import registry"),
        ("enlist_primary.ingest.reports", "from enlist_primary import links"),
        ("enlist_primary.links.registry", "import enlist_primary.rpc.context"),
        ("enlist_primary.controllers.tasks", "from enlist_primary.rpc import context"),
        ("enlist_primary.model.servers", "import enlist_primary"),
        ("enlist.link.sender", "import grpc"),
        ("enlist.link.sender", "from enlist.runtime import logs"),
        ("enlist.transport.dialer", "import msgspec"),
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
        ("enlist.link.sender", "from enlist.v1 import hierarchy_pb2\nfrom enlist import documents"),
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
