"""How much longer a policy change takes for each level that lies between: until the top-most primary has recorded every report.

One primary at the top, and under it, each in a group of its own, as many servers at three depths:

    Depth 1    the servers themselves
    Depth 2    a middle host; under the primary on it, the servers
    Depth 3    a middle host; under the primary on it, another one; under the primary on that, the servers

Middle hosts are real: `enlist-primary serve` and `enlist-secondary run`, joined. They have no handler for what is set.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import grpc.aio

from enlist.runtime import sockets
from enlist.v1 import policy_pb2, policy_pb2_grpc
from scripts.benchmarks.answering import PROCESSES, Order, answering
from scripts.benchmarks.documents import KIND, LONGEST, SETTLE, recorded, settings
from scripts.benchmarks.enrolling import ACCOUNT
from scripts.benchmarks.measuring import Rounds
from scripts.benchmarks.report import Figure, ratio
from scripts.benchmarks.stage import running_primary
from tests.support.processes import PrimaryProcess, SecondaryProcess, run

TARGET = 2.0
DEPTHS = (1, 2, 3)
ROUNDS = 7
NOTE = (
    "until all reports stand in the top-most primary's database, beside the same with one level less. "
    f"Middle hosts are real; at each depth {PROCESSES} client processes answer for the servers"
)


async def measure(quick: bool) -> list[Figure]:
    """The time until all is recorded, at all depths by turns, each beside the one above it."""
    servers = 200 if quick else 1000
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="enlist-bench-")))
        top = stack.enter_context(_primary(folder / "top"))
        for depth in DEPTHS:
            await _servers(stack, folder, top, depth, servers)
        target = stack.enter_context(sockets.target(top.data / "run" / "admin.sock"))
        admin = await stack.enter_async_context(grpc.aio.insecure_channel(target))
        taken: list[list[float]] = [[await _change(top, admin, depth, servers) for depth in DEPTHS] for _ in range(ROUNDS + 1)]
    by_depth = list(zip(*taken[1:], strict=True))  # the first round warms up, and waits until all stand in the tree
    return [
        ratio(f"policy change, {servers} servers at depth {depth}", "s", Rounds(there, above), TARGET, NOTE)
        for depth, above, there in zip(DEPTHS[1:], by_depth, by_depth[1:], strict=False)
    ]


@contextmanager
def _primary(folder: Path) -> Iterator[PrimaryProcess]:
    folder.mkdir(mode=0o700)
    with running_primary(folder) as primary:
        yield primary


async def _servers(stack: AsyncExitStack, folder: Path, top: PrimaryProcess, depth: int, servers: int) -> None:
    """Servers at that depth, connected."""
    above = top
    for level in range(1, depth):
        name = f"host-{depth}-{level}"
        primary = stack.enter_context(_primary(folder / f"primary-{depth}-{level}"))
        stack.enter_context(_host(folder, name, above, _group(depth), primary))
        above = primary
    key = above.last_line("api-key", "add", ACCOUNT, "--full", "--group", _group(depth))
    order = Order(servers, key, (above.host, above.api_port), (above.host, above.ssl_port))
    await stack.enter_async_context(answering(above.data, order))


@contextmanager
def _host(folder: Path, name: str, above: PrimaryProcess, group: str, below: PrimaryProcess) -> Iterator[None]:
    """The secondary that joins the primary on its host to the one above."""
    daemon = SecondaryProcess(folder, name)
    joins = folder / f"{name}.join"
    joins.write_text(above.last_line("join", ACCOUNT, "--name", name, "--group", group))
    where = ("--config", str(daemon.config), "--data", str(daemon.data))
    run("enlist-setup", "--unattended", "--json", "--join-file", str(joins), *where)
    above.do("server", "authorize", name, "--may-have-secondaries")
    with daemon.config.open("a") as config:
        config.write(f'\n[local_primary]\nsocket = "{below.data}/run/upstream.sock"\n')
    daemon.start()
    try:
        yield
    finally:
        daemon.close()


def _group(depth: int) -> str:
    return f"Depth {depth}"


async def _change(top: PrimaryProcess, admin: grpc.aio.Channel, depth: int, servers: int) -> float:
    """Sets the policy of the servers at that depth; seconds until all their reports are recorded."""
    key = policy_pb2.PolicyKey(parent=f"accounts/{ACCOUNT}", group=_group(depth), kind=KIND)
    request = policy_pb2.SetPolicyRequest(key=key, layer=policy_pb2.Layer(settings=settings()))
    begin = time.perf_counter()
    policy = await policy_pb2_grpc.PolicyServiceStub(admin).SetPolicy(request)
    async with asyncio.timeout(LONGEST):
        end = await recorded(top.data / "enlist.db", policy.revision, servers)
    await asyncio.sleep(SETTLE)
    return end - begin
