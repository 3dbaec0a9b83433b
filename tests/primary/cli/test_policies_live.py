"""`policy` against a real primary: the commands as people run them, servers that are links and words only."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from enlist.v1 import policy_pb2 as pb
from tests.primary.site import KIND, Site, at_site, key
from tests.support.processes import command
from tests.support.waiting import eventually


@dataclass
class Ended:
    """What came of a command."""

    status: int
    out: str
    err: str


@dataclass
class Terminal:
    """A person who types commands at the primary's host."""

    site: Site

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        data = str(self.site.running.folder.path)
        pipe = asyncio.subprocess.PIPE
        argv = command("enlist-primary", "--data", data, "policy", *arguments)
        return await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe)

    async def run(self, *arguments: str, stdin: bytes = b"") -> Ended:
        return await self.end(await self.start(*arguments), stdin)

    async def end(self, process: asyncio.subprocess.Process, stdin: bytes = b"") -> Ended:
        out, err = await asyncio.wait_for(process.communicate(stdin), 60)
        ended = Ended(process.returncode or 0, out.decode(), err.decode())
        assert "Traceback" not in ended.out + ended.err
        return ended

    async def json(self, *arguments: str, stdin: bytes = b"", status: int = 0) -> Any:
        ended = await self.run(*arguments, "--json", stdin=stdin)
        assert ended.status == status, ended
        return json.loads(ended.out)


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """One primary for this file, with three servers in Paris."""
    async with at_site(tmp_path_factory.mktemp("live")) as site:
        for name in ("s0", "s1", "s2"):
            await site.server(name, "Sites/Paris")
        yield site


@pytest.fixture
def person(site: Site) -> Terminal:
    return Terminal(site)


PARIS = ("acme.example/Sites/Paris", "--kind", KIND)
FROM_STDIN = (*PARIS, "--file", "-")


async def test_a_policy_from_its_plan_to_its_end(person: Terminal) -> None:
    planned = await person.json("plan", *FROM_STDIN, stdin=b'{"a": 1}')
    assert planned == [{"server": name, "before": None, "after": {"a": 1}} for name in ("s0", "s1", "s2")]
    first = await person.json("set", *FROM_STDIN, "--lock", "/a", stdin=b'{"a": 1}')
    assert (first["desired"], first["pending"], first["locks"], first["rollout"]) == (3, 3, ["/a"], None)
    assert await person.json("set", *FROM_STDIN, "--lock", "/a", stdin=b' {"a":1}') == first
    second = await person.json("set", *FROM_STDIN, stdin=b'{"a": 2}')
    assert second["revision"] > first["revision"]
    origin = {"layer": "acme.example/Sites/Paris", "revision": second["revision"], "locked": False}
    explained = await person.json("explain", "s0", "--kind", KIND)
    assert (explained["effective"], explained["origin"]) == ({"a": 2}, {"/a": origin})
    back = await person.json("rollback", *PARIS)
    [listed] = await person.json("list", "acme.example")
    assert listed == back
    shown = await person.json("show", *PARIS)
    assert (shown["settings"], {each["state"] for each in shown["servers"]}) == ({"a": 1}, {"pending"})
    await person.json("remove", *PARIS)
    revisions = await person.json("history", *PARIS)
    assert [(each["revision"], each["removed"]) for each in revisions[1:]] == [
        (back["revision"], False),
        (second["revision"], False),
        (first["revision"], False),
    ]
    assert revisions[0]["removed"] is True


@pytest.mark.parametrize(
    ("arguments", "settings", "reason", "words"),
    [
        (FROM_STDIN, b'{"a": {"b": 1, "b": 2}}', "POLICY_INVALID", '"/a/b"'),
        ((*FROM_STDIN, "--lock", "/b"), b"{}", "POLICY_INVALID", '"/b"'),
        (("acme.example/Oslo", "--kind", KIND, "--file", "-"), b"{}", "NOT_FOUND", "Oslo"),
        (("acme.example", "--kind", "no kind", "--file", "-"), b"{}", "INVALID_ARGUMENT", "kind"),
        (("nobody.example", "--kind", KIND, "--file", "-"), b"{}", "ACCOUNT_UNKNOWN", "nobody.example"),
        (FROM_STDIN, b" " * 1024 * 1024 + b"{}", "DOCUMENT_TOO_LARGE", "1 MiB"),
    ],
)
@pytest.mark.parametrize("verb", ["set", "plan"])
async def test_bad_input_is_refused_and_nothing_is_stored(
    person: Terminal, verb: str, arguments: tuple[str, ...], settings: bytes, reason: str, words: str
) -> None:
    head = await person.site.head()
    refused = await person.json(verb, *arguments, stdin=settings, status=1)
    assert (refused["reason"], words in refused["message"]) == (reason, True), refused
    assert await person.site.head() == head


async def test_watching_a_rollout_to_its_end(person: Terminal) -> None:
    site = person.site
    watching = await person.start("set", *FROM_STDIN, "--stages", "1,50%,100%", "--confirm", "10m", "--watch")
    watching_ends = asyncio.create_task(person.end(watching, b'{"b": 1}'))
    while not watching_ends.done():
        for name in site.ids:
            if await site.desired(name):
                await site.say(name)
        await asyncio.wait({watching_ends}, timeout=0.1)
    ended = await watching_ends
    assert ended.status == 0, ended
    assert "is set: revision" in ended.out
    assert ended.err.splitlines()[-1] == "[########################] applied 3 of 3, all stages done"
    assert "stage 1 of 3 (1)" in ended.err
    await site.stub.RemovePolicy(pb.RemovePolicyRequest(key=key("Sites/Paris")))


async def test_watching_a_failure_names_it(person: Terminal) -> None:
    site = person.site
    watching = await person.start("set", *FROM_STDIN, "--watch", "--json")
    ends = asyncio.create_task(person.end(watching, b'{"c": 1}'))

    async def is_set() -> bool:
        return all([await site.desired(name) for name in site.ids])

    await eventually(is_set, what="the policy")
    for name, state in (("s0", "applied"), ("s1", "failed"), ("s2", "applied")):
        await site.say(name, state, "exit status 1")
    ended = await ends
    assert (ended.status, json.loads(ended.out)["failed"]) == (1, 1)
    assert ended.err.splitlines()[-1] == "s1: failed: exit status 1"
    await site.stub.RemovePolicy(pb.RemovePolicyRequest(key=key("Sites/Paris")))


async def test_an_interrupt_ends_the_watching_and_nothing_else(person: Terminal) -> None:
    site = person.site
    watching = await person.start("set", *FROM_STDIN, "--watch")
    assert watching.stdin is not None
    assert watching.stderr is not None
    watching.stdin.write(b'{"d": 1}')
    watching.stdin.close()
    assert b"3 pending" in await asyncio.wait_for(watching.stderr.readline(), 20)
    watching.send_signal(signal.SIGINT)
    ended = await person.end(watching)
    assert ended.status == 1
    assert ended.err.startswith("INTERRUPTED: The watching is over, the policy stays as it is set.")
    assert (await site.get("Sites/Paris")).layer.settings == b'{"d":1}'


def test_the_settings_of_an_example_are_read_from_a_file(tmp_path: Path) -> None:
    from enlist_primary.cli.arguments import read_document

    (tmp_path / "settings.json").write_text('{"a": 1}')
    assert read_document(str(tmp_path / "settings.json"), "a policy has") == b'{"a": 1}'
