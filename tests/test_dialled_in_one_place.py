"""Nothing but `enlist/transport` opens a channel or a TLS connection to a primary, read from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("protos/enlist", "primary", "secondary", "installer", "docs", "scripts")
DIALER = ROOT / "protos" / "enlist" / "transport"

OPENS = {
    "secure_channel",
    "insecure_channel",
    "open_connection",
    "create_connection",
    "sock_connect",
    "start_tls",
    "wrap_socket",
    "wrap_bio",
}
"""Names of functions of gRPC, asyncio, socket and ssl that connect, or speak TLS."""

UNIX_SOCKETS = {
    "primary/enlist_primary/cli/client.py",
    "secondary/enlist_secondary/federation/upstream.py",
    "scripts/benchmarks/documents.py",
    "scripts/benchmarks/enrolling.py",
    "scripts/benchmarks/levels.py",
    "scripts/benchmarks/planning.py",
    "scripts/soaking/soak.py",
}
"""Files that open a channel to a unix socket of the same host, and to nothing else."""


def opening(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of each use of a function that opens a connection, however it was imported."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) if name in OPENS:
                yield node.lineno, name
            case ast.ImportFrom(names=names):
                yield from ((node.lineno, alias.name) for alias in names if alias.name in OPENS)


def sources() -> list[Path]:
    """All sources that are not generated, but for the dialer's."""
    found = (path for place in PLACES for path in (ROOT / place).rglob("*.py"))
    return [path for path in found if not path.name.endswith(("_pb2.py", "_pb2_grpc.py")) and DIALER not in path.parents]


def test_only_the_dialer_opens_connections() -> None:
    used = {str(path.relative_to(ROOT)): list(opening(ast.parse(path.read_bytes()))) for path in sources()}
    assert {path: found for path, found in used.items() if found and path not in UNIX_SOCKETS} == {}


@pytest.mark.parametrize("path", sorted(UNIX_SOCKETS))
def test_what_is_exempt_opens_one_kind_of_channel(path: str) -> None:
    names = {name for _, name in opening(ast.parse((ROOT / path).read_bytes()))}
    assert names in ({"insecure_channel"}, {"secure_channel"})


@pytest.mark.parametrize(
    "source",
    [
        "grpc.aio.secure_channel('a', c)",
        "from grpc.aio import insecure_channel as c",
        "asyncio.open_connection('a', 1)",
        "opener = loop.create_connection",
        "context.wrap_socket(s)",
    ],
)
def test_a_planted_connection_is_found(source: str) -> None:
    assert len(list(opening(ast.parse(source)))) == 1
