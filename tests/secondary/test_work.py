"""The work of an enrolment: what comes over the link is kept and done, also without one. Attacks row 46; faults rows 7, 9."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from enlist import certificates
from enlist.documents import SetVersion
from enlist.link.ends import SecondaryEnd
from enlist.link.pace import PIECE
from enlist.reasons import Reason, Refused
from enlist.runtime.threads import to_the_end
from enlist.v1 import document_pb2
from enlist.v1 import hierarchy_pb2 as pb
from enlist_primary.authority.signer import Signer, new_authority
from enlist_secondary import policies
from enlist_secondary import work as works
from enlist_secondary.ancestors import Ancestors, Ascent
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.connection import session
from enlist_secondary.identity import Identity
from enlist_secondary.policies import Policies
from enlist_secondary.tasks import Tasks
from enlist_secondary.work import Work
from tests.attacks.above import Above, way_up
from tests.secondary.disks import Disk
from tests.secondary.engine import Governed, Worker, soon
from tests.secondary.origins import ACCOUNT, SERVER, START, Primary, Times, Wish, pieces, policy, run, run_id, said, wish

A, B = {"text": "a"}, {"text": "b"}
ONE = run_id(1)


class Site:
    """A configured server: what its handlers govern, and its primary."""

    def __init__(self, folder: Path) -> None:
        self.primary, self.times = Primary(), Times()
        self.signer = Signer(self.primary.key, new_authority(self.primary.key, START))
        self.motd, self.worker = Governed(), Worker()
        self.config = SecondaryConfig(primary="primary.example", account=ACCOUNT, name="one", data=str(folder))

    def work(self) -> Work:
        identity = cast(Identity, SimpleNamespace(authority=self.signer.authority, server_id=SERVER))
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


class Link:
    """A link that is open, as the primary at its other end has it. The one before it is over."""

    def __init__(self, work: Work, at: int | None = START, hello: pb.Hello | None = None) -> None:
        """`at` is the primary's clock, None if it says no time. `hello` was said already, while the link before was open."""
        self.hello = introduced(work) if hello is None else hello
        welcome = pb.Welcome(primary_name="Primary")
        if at is not None:
            welcome.time.seconds = at
        self.session = work.linked(welcome, SecondaryEnd(certificates.new_key(), b""))
        self.words: dict[str, dict[str, Any]] = {}
        self._work = work
        self._numbers = count(1)

    def bring(self, primary: Primary, *wishes: Wish, **how: Any) -> None:
        """A whole set arrives."""
        self.take(self.message(primary.sign(wishes, **how), *wishes))

    def message(self, signed: document_pb2.SignedSet | None = None, *wishes: Wish) -> pb.FromPrimary:
        """The next message, with these bodies."""
        carried = [piece for each in wishes for piece in pieces(each.body)]
        return pb.FromPrimary(sequence=next(self._numbers), desired=signed, pieces=carried)

    def take(self, message: pb.FromPrimary) -> None:
        """A message arrives."""
        self._work.on_message(message, self.session)

    def said(self) -> list[pb.FromSecondary]:
        """What the server says now."""
        found = list(self.session.say())
        for message in found:
            self.words.update({report.kind + report.name: said(report) for report in message.reports.reports})
        return found

    def acknowledge(self, *messages: pb.FromSecondary) -> None:
        """The primary has taken the reports in these messages for good."""
        acks = [pb.Ack(sequence=each.reports.sequence) for each in messages if each.HasField("reports")]
        self.take(pb.FromPrimary(acks=acks))

    def state(self, what: str) -> str:
        """What was said of something, in one word; what is said now is acknowledged."""
        self.acknowledge(*self.said())
        return str(self.words.get(what, {}).get("state", ""))


def introduced(work: Work) -> pb.Hello:
    hello = pb.Hello()
    work.introduce(hello)
    return hello


async def test_what_comes_over_the_link_is_done_and_told(site: Site) -> None:
    async with site.working() as work:
        link = Link(work)
        link.bring(site.primary, policy(5, A), run(ONE, 6))
        await soon(lambda: link.state("policy/motd") == "applied")
        await soon(lambda: link.state("task/update" + ONE) == "succeeded")
        assert site.motd.in_force == A


async def test_hello_names_what_is_held_and_what_there_are_handlers_for(site: Site) -> None:
    async with site.working() as work:
        link = Link(work)
        assert list(link.hello.held) == []
        link.bring(site.primary, policy(5, A))
        await soon(lambda: introduced(work).held)
        hello = introduced(work)
        assert list(hello.kinds) == ["policy/motd", "task/update"]
        assert [(each.origin, each.number) for each in hello.held] == [(site.primary.name, 1)]


async def test_new_link_is_told_everything_again_also_after_a_restart(site: Site) -> None:
    for _ in range(2):
        async with site.working() as work:
            link = Link(work)
            link.bring(site.primary, policy(5, A), run(ONE, 6))
            await soon(lambda link=link: link.state("policy/motd") == "applied")  # type: ignore[misc]  # a default argument binds the loop's variable
            await soon(lambda link=link: link.state("task/update" + ONE) == "succeeded")  # type: ignore[misc]  # as above
            again = Link(work)
            assert again.state("policy/motd") == "applied"
            assert again.state("task/update" + ONE) == "succeeded"
    assert (len(site.motd.calls), len(site.worker.calls)) == (1, 1)


async def test_without_a_link_what_is_in_force_is_kept_up(site: Site) -> None:
    """Faults row 9."""
    async with site.working() as work:
        Link(work).bring(site.primary, policy(5, A))
        await soon(lambda: site.motd.in_force == A)
    async with site.working() as work:
        await soon(lambda: site.motd.looks > 0)
        work.unlinked()


async def test_lies_are_answered_and_said_in_the_log_and_end_nothing(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Attacks row 46: two sets of one version that say different things are an alarm."""
    async with site.working() as work:
        link = Link(work)
        link.bring(site.primary, policy(5, A), version=SetVersion(1, 5))
        await soon(lambda: site.motd.in_force == A)
        with caplog.at_level(logging.WARNING):
            link.bring(Primary(), policy(6, B))
            link.bring(site.primary, policy(6, B), version=SetVersion(1, 4))
            link.bring(site.primary, policy(6, B), target="bbbbbbbbbb")
            assert not [each for each in caplog.records if each.levelno >= logging.CRITICAL]
            link.bring(site.primary, policy(6, B), version=SetVersion(1, 5))
        alarms = [each for each in caplog.records if each.levelno >= logging.CRITICAL]
        assert [each.fields["reason"] for each in alarms] == [Reason.SET_CONFLICT]  # type: ignore[attr-defined]  # what `Log` adds
        told = [refused.reason for message in link.said() for refused in message.set_refusals]
        assert told == [Reason.SET_INVALID, Reason.SET_STALE, Reason.SET_INVALID, Reason.SET_CONFLICT]
        site.primary.number = 5
        link.bring(site.primary, policy(7, B))
        await soon(lambda: site.motd.in_force == B)
    assert site.motd.calls == [("apply", A), ("apply", B)]


async def test_set_is_acknowledged_with_the_first_message_after_it_is_kept(site: Site) -> None:
    async with site.working() as work:
        link = Link(work)
        link.bring(site.primary, policy(5, A))
        await soon(lambda: introduced(work).held)
        acks = [(ack.origin, ack.number) for message in link.said() for ack in message.set_acks]
        assert acks == [(site.primary.name, 1)]


async def test_messages_of_other_kinds_are_passed_over(site: Site) -> None:
    async with site.working() as work:
        link = Link(work)
        link.take(pb.FromPrimary())
        link.take(pb.FromPrimary(lower_answer=pb.LowerAnswer(reason="NOT_ALLOWED")))
        link.bring(site.primary, policy(5, A))
        await soon(lambda: site.motd.in_force == A)


async def test_ancestry_that_lies_keeps_nothing_else_out(site: Site) -> None:
    async with site.working() as work:
        link, wanted = Link(work), policy(5, A)
        message = link.message(site.primary.sign([wanted]), wanted)
        message.ancestry.ancestors.add(primary_name="nobody")
        link.take(message)
        await soon(lambda: site.motd.in_force == A)


async def test_on_a_full_disk_a_set_waits_and_nothing_needs_to_be_sent_again(
    site: Site, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    """Faults row 7. Before, it waited for the next message of the primary, if ever one came."""
    async with site.working() as work:
        link = Link(work)
        link.bring(site.primary, policy(5, A))
        await soon(lambda: site.motd.in_force == A)
        disk.full = lambda path: path.suffix == ".set"
        with caplog.at_level(logging.WARNING):
            link.bring(site.primary, policy(6, B))
            await soon(lambda: "a desired set was not kept yet" in caplog.text)
        assert site.motd.in_force == A
        disk.full = lambda _: False
        await soon(lambda: site.motd.in_force == B)


@pytest.mark.parametrize("engine", [Policies, Tasks])
async def test_fault_in_one_engine_stops_no_other_and_it_begins_anew(
    site: Site, engine: type[Policies | Tasks], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Before, a fault in one interrupted what ran in the other."""
    running, faults = engine.run, 0

    async def faulty(self: Any) -> None:
        nonlocal faults
        faults += 1
        if faults < 3:
            raise ValueError("a fault")
        await running(self)

    monkeypatch.setattr(engine, "run", faulty)
    site.motd.gate.close()
    site.worker.gate.close()
    async with site.working() as work:
        Link(work).bring(site.primary, policy(5, A), run(ONE, 6))
        await soon(lambda: site.motd.gate.waiting and site.worker.gate.waiting)
        assert "are not worked on" in caplog.text
        site.motd.gate.open()
        site.worker.gate.open()
        await soon(lambda: site.motd.in_force == A and site.worker.ended == ["succeeded"])


async def test_stop_ends_everything_that_was_begun(site: Site) -> None:
    before = asyncio.all_tasks()
    site.motd.gate.close()
    site.worker.gate.close()
    async with site.working() as work:
        Link(work).bring(site.primary, policy(5, A), run(ONE, 6))
        await soon(lambda: site.motd.gate.waiting and site.worker.gate.waiting)
    assert asyncio.all_tasks() <= before
    assert site.worker.ended == ["cancelled"]


async def test_kinds_of_a_newer_version_are_told_to_be_unsupported(site: Site) -> None:
    strange = wish("password/admin", "x", 7, b"secret")
    async with site.working() as work:
        link = Link(work)
        link.bring(site.primary, strange, policy(5, A))
        await soon(lambda: link.state("password/admin") == "unsupported")
        assert link.words["password/admin"]["meant"] == {site.primary.name: (7,)}
        link.bring(site.primary, policy(5, A))
        await soon(lambda: Link(work).state("password/admin") == "")


@pytest.mark.parametrize(
    ("primary", "state"),
    [(START + 1000, "timed_out"), (START - 1000, "succeeded"), (START, "succeeded"), (None, "succeeded")],
    ids=["ahead", "behind", "the same", "no time"],
)
async def test_deadlines_are_by_the_clock_of_the_last_welcome(site: Site, primary: int | None, state: str) -> None:
    """A primary that says no time has ours."""
    async with site.working() as work:
        Link(work, START + 5000)
        link = Link(work, primary)
        link.bring(site.primary, run(ONE, 5, deadline=START + 600))
        await soon(lambda: link.state("task/update" + ONE) == state)


# --- Outcomes and acknowledgements --------------------------------------------------------------------------------------------


async def test_acknowledged_outcome_is_not_reported_once_its_document_is_gone(site: Site) -> None:
    """The own primary ordered the run: that it has written the report down is all that is waited for."""
    async with site.working() as work:
        link = Link(work)
        link.bring(site.primary, run(ONE, 5))
        await soon(lambda: link.state("task/update" + ONE) == "succeeded")
        link.bring(site.primary)
        await soon(lambda: Link(work).state("task/update" + ONE) == "")


async def test_unacknowledged_outcome_is_reported_over_every_link_and_after_a_restart(site: Site) -> None:
    """The run's deadline passed at the primary while the link was down: its document is gone when the server is back."""
    async with site.working() as work:
        link = Link(work)
        link.bring(site.primary, run(ONE, 5))
        await soon(lambda: site.worker.ended == ["succeeded"])
        link.bring(site.primary)
        await soon(lambda: introduced(work).held and introduced(work).held[0].number == 2)
    async with site.working() as work:
        for _ in range(2):
            found = Link(work)
            found.said()
            assert found.words["task/update" + ONE]["state"] == "succeeded"


async def test_outcome_of_a_run_from_further_up_waits_for_its_origin(site: Site) -> None:
    """That the own primary has the report does not mean that the one who ordered the run has it."""
    above = Above(site.signer)
    ordered = run(ONE, 5, below=True)
    async with site.working() as work:
        link = Link(work)
        link.take(pb.FromPrimary(ancestry=way_up(above.step())))
        link.take(link.message(above.set(1, ordered.item), ordered))
        await soon(lambda: link.state("task/update" + ONE) == "succeeded")
        link.take(link.message(above.set(2)))
        await soon(lambda: {each.number for each in introduced(work).held} == {2})
        assert Link(work).state("task/update" + ONE) == "succeeded"
        link = Link(work)
        link.take(pb.FromPrimary(settled=[pb.Settled(run=ONE)]))
        await soon(lambda: Link(work).state("task/update" + ONE) == "")


async def test_words_on_outcomes_that_make_no_sense_are_one_line_in_the_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A line for each of them would fill a disk: a message has room for a hundred thousand."""
    async with site.working() as work:
        Link(work).take(pb.FromPrimary(settled=[pb.Settled(run="?"), pb.Settled(run=ONE, path="?"), pb.Settled(run=ONE)]))
    lines = [record for record in caplog.records if "outcomes were not taken" in record.getMessage()]
    assert len(lines) == 1


async def test_message_that_there_was_no_room_for_is_said_again_in_a_while(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if there is nothing else to say: an outcome would wait for the next link."""
    monkeypatch.setattr(session, "AGAIN_SECONDS", 0.01)
    async with site.working() as work:
        link = Link(work)
        link.bring(site.primary, policy(5, A))
        await soon(lambda: link.state("policy/motd") == "applied")
        link = Link(work)
        (refused,) = link.said()
        link.take(pb.FromPrimary(acks=[pb.Ack(sequence=refused.reports.sequence, refused=True)]))
        assert not link.session.news.is_set(), "there must be room first"
        await soon(link.session.news.is_set)
        (again,) = link.said()
        assert again.reports.reports == refused.reports.reports


@pytest.mark.parametrize("sequence", [-1, 0, 1, 2**40])
async def test_acknowledgement_of_what_was_never_sent_ends_the_link(site: Site, sequence: int) -> None:
    async with site.working() as work:
        link = Link(work)
        assert link.said() == []
        with pytest.raises(Refused) as caught:
            link.take(pb.FromPrimary(acks=[pb.Ack(sequence=sequence)]))
        assert caught.value.reason is Reason.LINK_VIOLATION


async def test_message_that_was_acknowledged_before_changes_nothing(site: Site) -> None:
    async with site.working() as work:
        link = Link(work)
        link.bring(site.primary, policy(5, A))
        await soon(lambda: link.state("policy/motd") == "applied")
        link.take(pb.FromPrimary(acks=[pb.Ack(sequence=1), pb.Ack(sequence=1, refused=True)]))
        assert link.said() == []


# --- Renewal ------------------------------------------------------------------------------------------------------------------


async def test_link_that_is_renewed_in_the_middle_of_a_set_loses_nothing(site: Site) -> None:
    """Both links are open for a moment; the older one's messages do not count once the newer one is open."""
    wanted, other, lie = policy(5, {"text": "x" * 3 * PIECE}), policy(6, B, kind="ntp"), policy(7, B)
    signed, parts = site.primary.sign([wanted, other]), pieces(wanted.body)
    async with site.working() as work:
        older = Link(work)
        older.take(pb.FromPrimary(sequence=1, desired=signed, pieces=parts[:1]))
        newer = Link(work, hello=introduced(work))
        assert [(each.digest, each.received) for each in newer.hello.bodies] == [(wanted.item.digest, PIECE)]
        older.take(pb.FromPrimary(sequence=2, pieces=parts[1:]))
        older.take(pb.FromPrimary(sequence=3, desired=site.primary.sign([lie]), pieces=pieces(lie.body)))
        older.take(pb.FromPrimary(acks=[pb.Ack(sequence=10**6)]))
        assert list(older.session.say()) == [], "the newer one speaks"
        newer.take(pb.FromPrimary(sequence=1, desired=signed, pieces=[*parts[1:], *pieces(other.body)]))
        await soon(lambda: newer.state("policy/motd") == "applied")
        assert site.motd.in_force == {"text": "x" * 3 * PIECE}


async def test_link_whose_successor_does_not_open_goes_on_in_the_middle_of_a_set(site: Site) -> None:
    wanted, other = policy(5, A), policy(6, B, kind="ntp")
    async with site.working() as work:
        link = Link(work)
        link.take(link.message(site.primary.sign([wanted, other]), other))
        introduced(work)
        link.take(link.message(None, wanted))
        await soon(lambda: link.state("policy/motd") == "applied")


async def test_report_that_the_older_link_said_is_said_by_the_newer_until_it_is_acknowledged(site: Site) -> None:
    async with site.working() as work:
        older = Link(work)
        older.bring(site.primary, policy(5, A))
        await soon(lambda: site.motd.in_force == A and older.said() == [])
        newer = Link(work, hello=introduced(work))
        assert newer.state("policy/motd") == "applied"


# --- The rest -----------------------------------------------------------------------------------------------------------------


async def test_folder_that_is_not_safe_is_refused(site: Site) -> None:
    folder = site.config.folder
    folder.mkdir(parents=True)
    (folder / "tasks").symlink_to("/tmp")
    with pytest.raises(Refused) as caught:
        site.work().load()
    assert caught.value.reason is Reason.FILE_UNSAFE


async def test_acknowledgements_wake_no_engine(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link at rest costs nothing."""
    looks: list[None] = []
    look = Policies.look

    def noted(self: Policies) -> None:
        looks.append(None)
        look(self)

    monkeypatch.setattr(Policies, "look", noted)
    async with site.working() as work:
        link = Link(work)
        link.bring(site.primary, policy(5, A))
        await soon(lambda: link.state("policy/motd") == "applied")
        looks.clear()
        link.take(pb.FromPrimary())
        link.take(pb.FromPrimary(acks=[pb.Ack(sequence=1)]))
        for _ in range(50):
            await asyncio.sleep(0)
        assert looks == []


async def test_sets_that_met_a_fault_are_read_once_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a machine that can start no thread just now: the set that came then would count only with the next one."""
    faults = 2

    async def strained(*work: Any) -> Any:
        nonlocal faults
        if faults:
            faults -= 1
            raise RuntimeError("can't start new thread")
        return await to_the_end(*work)

    monkeypatch.setattr(policies, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(policies, "to_the_end", strained)
    async with site.working() as work:
        Link(work).bring(site.primary, policy(5, A))
        await soon(lambda: site.motd.in_force == A, "the policy in force", 5)


async def test_who_stands_above_is_written_down_also_after_a_fault(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a restart would take back what the sets from further up put in force."""
    saved, save = list[Ascent](), Ancestors.save

    def failing(self: Ancestors, ascent: Ascent) -> None:
        saved.append(ascent)
        if len(saved) < 3:
            raise RuntimeError("can't start new thread")
        save(self, ascent)

    monkeypatch.setattr(Ancestors, "save", failing)
    above = Above(site.signer)
    async with site.working() as work:
        link = Link(work)
        link.take(pb.FromPrimary(ancestry=way_up(above.step())))
        await soon(lambda: len(saved) == 3, "who stands above to be written", 5)
        link.bring(site.primary, policy(5, A))
        await soon(lambda: site.motd.in_force == A)
    assert len(saved) == 3
    assert [each.origin.primary_id for each in saved[-1].above] == [above.fingerprint]


async def test_who_comes_to_stand_above_while_that_is_written_down_is_written_too(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, save, leave = list[Ascent](), Ancestors.save, threading.Event()

    def slow(self: Ancestors, ascent: Ascent) -> None:
        saved.append(ascent)
        assert leave.wait(20)
        save(self, ascent)

    monkeypatch.setattr(Ancestors, "save", slow)
    above = Above(site.signer)
    top = Above(above.signer, "top", "holding.example", "t" * 10)
    async with site.working() as work:
        link = Link(work)
        link.take(pb.FromPrimary(ancestry=way_up(above.step())))
        await soon(lambda: len(saved) == 1, "who stands above to be written", 5)
        link.take(pb.FromPrimary(ancestry=way_up(above.step(), top.step())))
        leave.set()
        await soon(lambda: len(saved) == 2, "who stands above that to be written", 5)
    assert [each.origin.primary_id for each in saved[-1].above] == [above.fingerprint, top.fingerprint]
