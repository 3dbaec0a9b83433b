"""What a link writes while other things are decided: the moments in which one of them could be lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from enlist_primary.rpc.link import _Body, _close

from enlist import certificates
from enlist.documents import SetVersion
from enlist.reasons import Reason
from enlist.v1 import account_pb2, document_pb2, hierarchy_pb2
from enlist_primary.model.desired import NOTHING
from enlist_primary.model.levels import UpperState
from enlist_primary.model.servers import State
from enlist_primary.model.users import PRIMARY_ITSELF
from enlist_primary.operations import levels
from enlist_primary.rpc.context import Context
from enlist_primary.store.servers import Standing
from tests.attacks.above import Above, policy, stand_under, way_up
from tests.support.inprocess import ACCOUNT, Asker, Running
from tests.support.waiting import eventually


class Stream:
    """Takes what is written. `before` and `after` are called once, with the first message, before or after it is taken."""

    def __init__(self, before: Callable[[], Any] | None = None, after: Callable[[], Any] | None = None) -> None:
        self.written: list[hierarchy_pb2.FromPrimary] = []
        self._before, self._after = before, after

    async def write(self, message: Any) -> None:
        """As that of gRPC, which takes bytes too."""
        before, self._before = self._before, None
        if before is not None:
            await before()
        whole = message if isinstance(message, bytes) else message.SerializeToString()
        self.written.append(hierarchy_pb2.FromPrimary.FromString(whole))
        after, self._after = self._after, None
        if after is not None:
            after()

    def numbers(self) -> list[int]:
        """The versions of the sets that were written."""
        sets = [each.desired.desired_set for each in self.written if each.HasField("desired")]
        return [document_pb2.DesiredSet.FromString(each).number for each in sets]


def welcomed(own: Context, stream: Any, id: str = "s" * 10) -> _Body:
    """A link behind its welcome, to which nothing was written yet."""
    link = own.hub.open(ACCOUNT, id, own.now() + 3600)
    who: Any = None
    body = _Body(own, stream, link, hierarchy_pb2.Hello(), who)
    link.deliver, link.look_up = body._deliver, body._look_up
    body._upper_version, body._welcomed = own.upper.version, True
    return body


async def test_a_set_that_comes_in_the_moment_in_which_the_writer_ends_is_sent(own: Context) -> None:
    """The writer has nothing more to write, and is not known to have ended: one loop's round lies between the two."""
    loop = asyncio.get_running_loop()
    stream = Stream(after=lambda: loop.call_soon(body._deliver, NOTHING, SetVersion(1, 2)))
    body = welcomed(own, stream)
    body._deliver(NOTHING, SetVersion(1, 1))
    await eventually(lambda: stream.numbers() == [1, 2], 5, "both sets to be sent")


async def test_no_set_from_above_goes_out_before_the_server_was_told_of_its_origin(own: Context) -> None:
    """While a link is told who stands above, another primary comes to stand there, and its set with it: the server would refuse
    that, and it counted as sent."""
    above = await stand_under(own)
    top = Above(above.signer, "top", "holding.example", "t" * 10)

    async def meanwhile() -> None:
        (near,) = own.upper.message.ancestors
        await own.upper.ascend(way_up(near, top.step()))
        item, content = policy("web", 9, {"number": 9})
        await own.upper.take(top.set(9, item), {item.digest: content})

    stream = Stream(before=meanwhile)
    body = welcomed(own, stream)
    body._upper_version = -1
    body._begin_writing()
    await eventually(lambda: stream.numbers() == [9], 5, "the set")
    known: set[str] = set()
    for message in stream.written:
        if message.HasField("desired"):
            assert message.desired.origin in known
        certified = [each.authority_certificate for each in message.ancestry.ancestors]
        known |= {certificates.read_authority(each).fingerprint for each in certified}


async def test_a_primary_that_stood_above_may_stand_below_once_it_does_so_no_more(running: Running, own: Context) -> None:
    """Nothing is decided about its server then, and it asks but once."""
    async with running.stranger() as stub:
        key = await running.api_key(kind=account_pb2.API_KEY_KIND_FULL)
        id = (await Asker(running).register(stub, key)).server_id
    await own.database.write(ACCOUNT, levels.allow, ACCOUNT, id, True, None, PRIMARY_ITSELF, own.now())
    above = await stand_under(own)
    authority = certificates.der(above.signer.authority.certificate)
    present, parent = document_pb2.ANCESTOR_STATE_PRESENT, own.signer.authority.primary_id
    consent = document_pb2.Consent(parent_primary_id=parent, epoch=1, number=1, state=present).SerializeToString()
    signature = above.signer.sign_consent(consent)
    said = hierarchy_pb2.LowerPrimary(authority_certificate=authority, consent=consent, consent_signature=signature)
    stream = Stream()
    body = welcomed(own, stream, id)
    body._hear(hierarchy_pb2.FromSecondary(lower=said))

    def answers() -> list[str]:
        return [each.lower_answer.reason for each in stream.written if each.HasField("lower_answer")]

    await eventually(lambda: answers() == [Reason.WOULD_LOOP], 5, "the refusal")
    await own.upper.join(authority, above.name, UpperState.GONE, own.now())
    await eventually(lambda: answers() == [Reason.WOULD_LOOP, ""], 5, "the certificate")
    await body._lower.close()


async def test_a_link_whose_peer_goes_while_it_is_being_ended_is_taken_out(own: Context) -> None:
    """Its server was suspended in that moment: it would be shown as connected until it comes back."""
    link = own.hub.open(ACCOUNT, "s" * 10, own.now() + 3600)
    leave = asyncio.Event()

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await leave.wait()

    body, standing = asyncio.create_task(run()), Standing(ACCOUNT, "s" * 10, "", State.SUSPENDED, 0, None)
    await asyncio.sleep(0)
    closing = asyncio.create_task(_close(own, link, body, standing, None))
    await asyncio.sleep(0)
    closing.cancel()
    leave.set()
    await asyncio.wait({closing, body})
    assert closing.cancelled()
    assert not own.hub.connected(ACCOUNT, "s" * 10)
    assert own.observations.seen(ACCOUNT, "s" * 10).disconnected_at
