"""How long `policy plan` takes for very many servers, when what is to change stands at the very top."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc.aio

from enlist import names
from enlist.runtime import sockets
from enlist.v1 import hierarchy_pb2, hierarchy_pb2_grpc, policy_pb2, policy_pb2_grpc
from scripts.benchmarks.enrolling import ACCOUNT
from scripts.benchmarks.measuring import median
from scripts.benchmarks.report import Figure
from scripts.benchmarks.stage import running_primary
from tests.support.processes import PrimaryProcess

TARGET = 5.0
SERVERS, REGIONS, SITES = 10_000, 10, 19
"""Servers in all, spread over the sites; regions, and sites in each: 200 groups."""
KIND = "chrony"
PARENT = f"accounts/{ACCOUNT}"


async def measure(quick: bool) -> list[Figure]:
    """Seconds of the command as people run it, start and output included."""
    return await asyncio.to_thread(_measure, 3 if quick else 7)


def _measure(rounds: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="enlist-bench-") as name, running_primary(Path(name)) as primary:
        asyncio.run(_groups_and_policies(primary))
        primary.end()
        with closing(sqlite3.connect(primary.data / "enlist.db")) as database:
            _add_servers(database)
        primary.start()
        file = Path(name) / "settings.json"
        file.write_text(json.dumps(_settings("all") | {"port": 11123}))
        seconds = [_plan(primary, file) for _ in range(rounds)]
    value = median(seconds)
    note = f"the whole command, --json; {SERVERS} servers in {len(list(_paths()))} groups, each group with a policy of the kind"
    figure = f"policy plan at the top, {SERVERS} servers"
    return [Figure(figure, "s", value, value, None, TARGET, spread=(min(seconds), max(seconds)), note=note)]


def _plan(primary: PrimaryProcess, file: Path) -> float:
    begin = time.perf_counter()
    done = primary.do("policy", "plan", ACCOUNT, "--kind", KIND, "--file", str(file), "--json")
    seconds = time.perf_counter() - begin
    assert len(json.loads(done.stdout)) == SERVERS, "each server's settings change"
    return seconds


def _paths() -> Iterator[str]:
    for region in range(REGIONS):
        yield f"Region {region}"
        yield from (f"Region {region}/Site {site}" for site in range(SITES))


async def _groups_and_policies(primary: PrimaryProcess) -> None:
    with sockets.target(primary.data / "run" / "admin.sock") as target:
        async with grpc.aio.insecure_channel(target) as admin:
            hierarchy, policies = hierarchy_pb2_grpc.HierarchyServiceStub(admin), policy_pb2_grpc.PolicyServiceStub(admin)
            for path in _paths():
                await hierarchy.CreateGroup(hierarchy_pb2.CreateGroupRequest(parent=PARENT, path=path))
            for path in (names.ROOT_GROUP, *_paths()):
                key = policy_pb2.PolicyKey(parent=PARENT, group=path, kind=KIND)
                layer = policy_pb2.Layer(settings=json.dumps(_settings(path)).encode())
                await policies.SetPolicy(policy_pb2.SetPolicyRequest(key=key, layer=layer))


def _settings(where: str) -> dict[str, object]:
    """A kilobyte of settings; each group says something of its own."""
    sources = {f"ntp{number}.acme.example": {"iburst": True, "weight": number} for number in range(16)}
    return {"group": where, "sources": {**sources, f"ntp.{where}": {"prefer": True}}}


def _add_servers(database: sqlite3.Connection) -> None:
    sites = [row[0] for row in database.execute("SELECT id FROM server_group WHERE name LIKE 'Site%'")]
    now = int(time.time())
    rows = [
        (ACCOUNT, f"{number:010}", f"server-{number}", sites[number % len(sites)], _key(number), now, now)
        for number in range(SERVERS)
    ]
    sql = "INSERT INTO server (account, id, name, group_id, state, key, since, created_at) VALUES (?, ?, ?, ?, 'trusted', ?, ?, ?)"
    with database:
        database.executemany(sql, rows)


def _key(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()
