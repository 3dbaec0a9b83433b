"""The work of an enrolment: what comes over the link is kept and done, also without one. Attacks row 46; faults rows 7, 9."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from enlist.certificates import Authority
from enlist.documents import SetVersion
from enlist.reasons import Reason, Refused
from enlist.runtime.threads import to_the_end
from enlist.v1 import hierarchy_pb2 as pb
from enlist_secondary import policies
from enlist_secondary import work as works
from enlist_secondary.ancestors import Ascent
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.identity import Identity
from enlist_secondary.outbox import Outlet
from enlist_secondary.work import Work
from tests.secondary.disks import Disk
from tests.secondary.engine import Governed, Worker, soon
from tests.secondary.origins import ACCOUNT, SERVER, START, Primary, Times, Wish, bodies, policy, run, run_id, said, wish

A, B = {"text": "a"}, {"text": "b"}
ONE = run_id(1)


class Site:
    """A configured server: what its handlers govern, and its primary."""

    def __init__(self, folder: Path) -> None:
        self.primary, self.times = Primary(), Times()
        self.motd, self.worker = Governed(), Worker()
        self.config = SecondaryConfig(primary="primary.example", account=ACCOUNT, name="one", data=str(folder))

    def work(self) -> Work:
        authority = Authority(cast(Any, None), self.primary.origin.public_key)
        identity = cast(Identity, SimpleNamespace(authority=authority, server_id=SERVER))
        return Work(self.config, identity, self.times.clock)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[Work]:
        """The work, from the start of the daemon to its stop."""
        work = self.work()
        work.load()
        keeping = asyncio.create_task(work.keep_up())
        try:
            yield work
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})
            assert keeping.cancelled()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(tmp_path)
    monkeypatch.setattr(works, "build_policies", lambda _: {"motd": made.motd})
    monkeypatch.setattr(works, "build_tasks", lambda _: {"update": made.worker})
    monkeypatch.setattr(works, "AGAIN_SECONDS", 0.01)
    return made


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def carrying(primary: Primary, *wishes: Wish, **how: Any) -> pb.FromPrimary:
    return pb.FromPrimary(desired=primary.sign(wishes, **how), bodies=bodies(wishes))


def opened(work: Work, at: int = START) -> Outlet:
    """A link that has just opened."""
    welcome = pb.Welcome(primary_name="Primary")
    welcome.time.seconds = at
    return work.welcomed(welcome)


class Heard:
    """What a primary hears over a link."""

    def __init__(self, work: Work, at: int = START) -> None:
        self._work, self._outlet = work, opened(work, at)
        self.words: dict[str, dict[str, Any]] = {}

    def state(self, what: str) -> str:
        for message in self._work.say(self._outlet):
            self.words.update({report.kind + report.name: said(report) for report in message.reports.reports})
        return str(self.words.get(what, {}).get("state", ""))


def introduced(work: Work) -> pb.Hello:
    hello = pb.Hello()
    work.introduce(hello)
    return hello


async def test_what_comes_over_the_link_is_done_and_told(site: Site) -> None:
    async with site.working() as work:
        heard = Heard(work)
        await work.take(carrying(site.primary, policy(5, A), run(ONE, 6)))
        await soon(lambda: heard.state("policy/motd") == "applied")
        await soon(lambda: heard.state("task/update" + ONE) == "succeeded")
        assert site.motd.in_force == A


async def test_the_hello_names_what_is_held_and_what_there_are_handlers_for(site: Site) -> None:
    async with site.working() as work:
        assert list(introduced(work).held) == []
        await work.take(carrying(site.primary, policy(5, A)))
        await soon(lambda: work._held.items(""))
        hello = introduced(work)
        assert list(hello.kinds) == ["policy/motd", "task/update"]
        assert [(each.origin, each.number) for each in hello.held] == [(site.primary.name, 1)]


async def test_a_new_link_is_told_everything_again_also_after_a_restart(site: Site) -> None:
    for _ in range(2):
        async with site.working() as work:
            heard = Heard(work)
            await work.take(carrying(site.primary, policy(5, A), run(ONE, 6)))
            await soon(lambda heard=heard: heard.state("policy/motd") == "applied")  # type: ignore[misc]  # a default argument binds the loop's variable
            await soon(lambda heard=heard: heard.state("task/update" + ONE) == "succeeded")  # type: ignore[misc]  # as above
            again = Heard(work)
            assert again.state("policy/motd") == "applied"
            assert again.state("task/update" + ONE) == "succeeded"
    assert (len(site.motd.calls), len(site.worker.calls)) == (1, 1)


async def test_without_a_link_what_is_in_force_is_kept_up(site: Site) -> None:
    """Faults row 9."""
    async with site.working() as work:
        await work.take(carrying(site.primary, policy(5, A)))
        await soon(lambda: site.motd.in_force == A)
    async with site.working() as work:
        await soon(lambda: site.motd.looks > 0)
        work.unlinked()


async def test_lies_are_said_in_the_log_and_end_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Attacks row 46: two sets of one version that say different things are an alarm."""
    async with site.working() as work:
        await work.take(carrying(site.primary, policy(5, A), version=SetVersion(1, 5)))
        await soon(lambda: site.motd.in_force == A)
        with caplog.at_level(logging.WARNING):
            await work.take(carrying(Primary(), policy(6, B)))
            await work.take(carrying(site.primary, policy(6, B), version=SetVersion(1, 4)))
            await work.take(carrying(site.primary, policy(6, B), target="bbbbbbbbbb"))
            assert not [each for each in caplog.records if each.levelno >= logging.CRITICAL]
            await work.take(carrying(site.primary, policy(6, B), version=SetVersion(1, 5)))
        alarms = [each for each in caplog.records if each.levelno >= logging.CRITICAL]
        assert [each.fields["reason"] for each in alarms] == [Reason.SET_CONFLICT]  # type: ignore[attr-defined]  # what `Log` adds
        site.primary.number = 5
        await work.take(carrying(site.primary, policy(7, B)))
        await soon(lambda: site.motd.in_force == B)
    assert site.motd.calls == [("apply", A), ("apply", B)]


async def test_messages_of_other_kinds_are_passed_over(site: Site) -> None:
    async with site.working() as work:
        await work.take(pb.FromPrimary())
        await work.take(pb.FromPrimary(lower_answer=pb.LowerAnswer(reason="NOT_ALLOWED")))
        await work.take(carrying(site.primary, policy(5, A)))
        await soon(lambda: site.motd.in_force == A)


async def test_an_ancestry_that_lies_keeps_nothing_else_out(site: Site) -> None:
    message = carrying(site.primary, policy(5, A))
    message.ancestry.ancestors.add(primary_name="nobody")
    async with site.working() as work:
        await work.take(message)
        await soon(lambda: site.motd.in_force == A)


async def test_on_a_full_disk_a_set_waits_and_nothing_needs_to_be_sent_again(
    site: Site, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    """Faults row 7. Before, it waited for the next message of the primary, if ever one came."""
    async with site.working() as work:
        await work.take(carrying(site.primary, policy(5, A)))
        await soon(lambda: site.motd.in_force == A)
        disk.full = lambda path: path.suffix == ".set"
        with caplog.at_level(logging.WARNING):
            await work.take(carrying(site.primary, policy(6, B)))
            await soon(lambda: "a desired set was not kept yet" in caplog.text)
        assert site.motd.in_force == A
        disk.full = lambda _: False
        await soon(lambda: site.motd.in_force == B)


@pytest.mark.parametrize("engine", ["_policies", "_tasks"])
async def test_a_fault_in_one_engine_stops_no_other_and_it_begins_anew(
    site: Site, engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Before, a fault in one interrupted what ran in the other."""
    work = site.work()
    work.load()
    broken = getattr(work, engine)
    running, faults = broken.run, 0

    async def faulty() -> None:
        nonlocal faults
        faults += 1
        if faults < 3:
            raise ValueError("a fault")
        await running()

    broken.run = faulty
    site.motd.gate.close()
    site.worker.gate.close()
    keeping = asyncio.create_task(work.keep_up())
    await work.take(carrying(site.primary, policy(5, A), run(ONE, 6)))
    await soon(lambda: site.motd.gate.waiting and site.worker.gate.waiting)
    assert "documents are not worked on" in caplog.text
    site.motd.gate.open()
    site.worker.gate.open()
    await soon(lambda: site.motd.in_force == A and site.worker.ended == ["succeeded"])
    keeping.cancel()
    await asyncio.wait({keeping})


async def test_a_stop_ends_everything_that_was_begun(site: Site) -> None:
    before = asyncio.all_tasks()
    site.motd.gate.close()
    site.worker.gate.close()
    async with site.working() as work:
        await work.take(carrying(site.primary, policy(5, A), run(ONE, 6)))
        await soon(lambda: site.motd.gate.waiting and site.worker.gate.waiting)
    assert asyncio.all_tasks() <= before
    assert site.worker.ended == ["cancelled"]


async def test_kinds_of_a_newer_version_are_told_to_be_unsupported(site: Site) -> None:
    strange = wish("password/admin", "x", 7, b"secret")
    async with site.working() as work:
        heard = Heard(work)
        await work.take(carrying(site.primary, strange, policy(5, A)))
        await soon(lambda: heard.state("password/admin") == "unsupported")
        assert heard.words["password/admin"]["meant"] == {site.primary.name: (7,)}
        await work.take(carrying(site.primary, policy(5, A)))
        await soon(lambda: len(work._held.items("")) == 1)  # a link that opens earlier forgets what has not come whole
        await soon(lambda: Heard(work).state("password/admin") == "")


@pytest.mark.parametrize(("primary", "state"), [(START + 1000, "timed_out"), (START - 1000, "succeeded"), (START, "succeeded")])
async def test_deadlines_are_by_the_clock_of_the_last_welcome(site: Site, primary: int, state: str) -> None:
    async with site.working() as work:
        heard = Heard(work, primary)
        await work.take(carrying(site.primary, run(ONE, 5, deadline=START + 600)))
        await soon(lambda: heard.state("task/update" + ONE) == state)
        work.welcomed(pb.Welcome())
        assert work._tasks.ahead == 0.0, "a primary that says no time has ours"


async def test_a_link_that_is_renewed_in_the_middle_of_a_set_loses_nothing(site: Site) -> None:
    first = carrying(site.primary, policy(5, A), policy(6, B, kind="ntp"))
    half = pb.FromPrimary(desired=first.desired, bodies=first.bodies[:1])
    async with site.working() as work:
        await work.take(half)
        introduced(work)
        opened(work)
        await work.take(pb.FromPrimary(bodies=first.bodies[1:]))
        assert not introduced(work).held
        await work.take(first)
        await soon(lambda: site.motd.in_force == A)


async def test_a_link_whose_successor_does_not_open_goes_on_in_the_middle_of_a_set(site: Site) -> None:
    whole = carrying(site.primary, policy(5, A), policy(6, B, kind="ntp"))
    async with site.working() as work:
        await work.take(pb.FromPrimary(desired=whole.desired, bodies=whole.bodies[:1]))
        introduced(work)
        await work.take(pb.FromPrimary(bodies=whole.bodies[1:]))
        await soon(lambda: site.motd.in_force == A)


async def test_a_folder_that_is_not_safe_is_refused(site: Site) -> None:
    folder = site.config.folder
    folder.mkdir(parents=True)
    (folder / "tasks").symlink_to("/tmp")
    with pytest.raises(Refused) as caught:
        site.work().load()
    assert caught.value.reason is Reason.FILE_UNSAFE


async def test_at_rest_nothing_wakes(site: Site) -> None:
    async with site.working() as work:
        looks: list[str] = []
        look = work._policies.look

        def noted() -> None:
            looks.append("look")
            look()

        work._policies.look = noted  # type: ignore[method-assign]  # noted on its way
        waits: Any = work._came
        await soon(lambda: waits._waiters)
        looks.clear()
        await work.take(pb.FromPrimary())
        await soon(lambda: looks and waits._waiters)
        for _ in range(50):
            await asyncio.sleep(0)
        assert looks == ["look"]


async def test_sets_that_met_a_fault_are_read_once_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a machine that can start no thread just now: the set that came then would count only with the next one."""
    faults = 2

    async def strained(*work: Any) -> Any:
        nonlocal faults
        if faults:
            faults -= 1
            raise RuntimeError("can't start new thread")
        return await to_the_end(*work)

    monkeypatch.setattr(policies, "to_the_end", strained)
    async with site.working() as work:
        await work.take(carrying(site.primary, policy(5, A)))
        await soon(lambda: site.motd.in_force == A, "the policy in force", 5)


async def test_who_stands_above_is_written_down_also_after_a_fault(site: Site) -> None:
    """Or a restart would take back what the sets from further up put in force."""
    saved: list[bool] = []

    def save(ascent: Ascent) -> None:
        saved.append(True)
        if len(saved) < 3:
            raise RuntimeError("can't start new thread")

    async with site.working() as work:
        work._ancestors.save = save  # type: ignore[method-assign]  # this one's alone
        work._ascended = True
        await work.take(pb.FromPrimary())
        await soon(lambda: len(saved) == 3, "who stands above to be written", 5)
        await work.take(carrying(site.primary, policy(5, A)))
        await soon(lambda: site.motd.in_force == A)
    assert len(saved) == 3
