"""Decisions about levels: under which primary this one stands, which primaries stand under it, and what those leave."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from enlist.ancestry import Memory
from enlist.documents import Stamp
from enlist.reasons import Reason, Refused
from enlist.v1 import document_pb2
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.levels import ANCESTOR_STATES, Bequest, DescendantRecord, Upper, UpperState
from enlist_primary.model.users import PRIMARY_ITSELF, Actor
from enlist_primary.operations import reports
from enlist_primary.operations.journalling import about_server, record
from enlist_primary.store import accounts, levels, servers
from enlist_primary.store.database import Transaction

Sign = Callable[[bytes], bytes]

# --- Above ------------------------------------------------------------------------------------------------------------------


def stand_under(
    tx: Transaction, authority: bytes, key: bytes, fingerprint: str, name: str, state: UpperState, sign: Sign, now: int
) -> Upper:
    """Consents to stand under a primary, or notes that it does so no more; what holds already is returned as it is.

    Whoever has both this host's folders joined the two: it is journalled as the primary's own decision. What another primary
    above left before ends with this.
    """
    accounts.lock(tx, PRIMARY)
    known = levels.upper(tx)
    if known is not None and (known.authority, known.state) == (authority, state):
        if known.name != name:  # nothing but what it is called
            levels.save_upper(tx, replace(known, name=name))
        return replace(known, name=name)
    if known is None and state is UpperState.GONE:
        raise Refused(Reason.NOT_FOUND, "No primary stands above this one.")
    action = "upper.join" if state is UpperState.PRESENT else "upper.leave"
    number = record(tx, PRIMARY, action, "", PRIMARY_ITSELF, now, upper=name, fingerprint=fingerprint, leaves=state.value)
    consent, signature = b"", b""
    if state is not UpperState.GONE:
        stamp = {"epoch": levels.epoch(tx), "number": number}
        consent = document_pb2.Consent(upper_key=key, state=ANCESTOR_STATES[state], **stamp).SerializeToString()
        signature = sign(consent)
    same = known is not None and known.authority == authority and state is not UpperState.GONE
    ancestry = known.ancestry if same and known is not None else b""
    if state is not UpperState.PRESENT:  # or it only asks anew: what was left holds until the primary above says who stands there
        ancestry = _renewed(ancestry, consent, signature)
    memory = known.memory if known is not None else Memory()
    changed = Upper(authority, name, state, consent, signature, ancestry, _with_sets(tx, memory) if not ancestry else memory)
    levels.save_upper(tx, changed)
    if not ancestry:
        levels.forget_upper_sets(tx, levels.upper_sets(tx))
    return changed


def _with_sets(tx: Transaction, memory: Memory) -> Memory:
    """What is remembered once no set from above is kept any more."""
    stamps = dict(memory.sets)
    for origin, signed in levels.upper_sets(tx).items():
        said = document_pb2.DesiredSet.FromString(document_pb2.SignedSet.FromString(signed).desired_set)
        stamps[origin] = Stamp(said.epoch, said.number)
    return Memory(memory.words, stamps)


def _renewed(ancestry: bytes, consent: bytes, signature: bytes) -> bytes:
    """The ancestry with another word of this primary on its first step."""
    if not ancestry:
        return b""
    message = document_pb2.Ancestry.FromString(ancestry)
    message.ancestors[0].consent, message.ancestors[0].consent_signature = consent, signature
    return message.SerializeToString()


def ascend(tx: Transaction, ancestry: bytes, origins: Collection[str], memory: Memory) -> Upper | None:
    """Keeps who stands above, as the primary above said it, and drops the sets of those that do not any more."""
    known = levels.upper(tx)
    if known is None or known.state is not UpperState.PRESENT:
        return None
    changed = replace(known, ancestry=ancestry, memory=memory)
    levels.save_upper(tx, changed)
    levels.forget_upper_sets(tx, [origin for origin in levels.upper_sets(tx) if origin not in origins])
    return changed


def hand_down(tx: Transaction, origin: str, signed: bytes, bodies: Sequence[tuple[str, bytes]]) -> None:
    """Keeps a set from above, unchanged, for whoever stands below."""
    levels.save_upper_set(tx, origin, signed, bodies)


# --- Below ------------------------------------------------------------------------------------------------------------------


def allow(tx: Transaction, account: str, id: str, may: bool, bequest: Bequest | None, by: Actor, now: int) -> None:
    """Whether a primary on this server's host may stand under this one; `bequest` says what stays of it where it may no more."""
    accounts.lock(tx, account)
    server = servers.load(tx, account, id)
    if levels.middle(tx, account, id).may_have_secondaries is may:
        return
    if not may:
        bequeath(tx, account, id, bequest, required=True)
    action = "server.allow-secondaries" if may else "server.forbid-secondaries"
    left = bequest.value if bequest is not None and not may else None
    levels.allow(tx, account, id, may, record(tx, account, action, about_server(id), by, now, name=server.name, below=left))


def certify(
    tx: Transaction, account: str, id: str, fingerprint: str, above: Collection[str], certificate: Callable[[], bytes], now: int
) -> bytes:
    """The cross-certificate for the primary on a server's host; the one it has, if it has one. `above` are all primaries from this
    one up.

    Refused: NOT_ALLOWED where it was not granted, or for another primary than the one that stands there; WOULD_LOOP where this
    primary stands below that one already.
    """
    accounts.lock(tx, account)
    known = levels.middle(tx, account, id)
    if not known.may_have_secondaries:
        name = servers.load(tx, account, id).shown_name
        allow = f"enlist-primary server authorize {name} --may-have-secondaries"
        raise Refused(Reason.NOT_ALLOWED, f"This server may not have secondaries. Allow it with: {allow}")
    if fingerprint in above:
        raise Refused(Reason.WOULD_LOOP, "That primary stands above this one already, or is this one: it cannot stand below too.")
    if known.lower_key == fingerprint and known.cross_certificate is not None:
        return known.cross_certificate
    if known.lower_key is not None:
        raise Refused(
            Reason.NOT_ALLOWED,
            "Another primary stands below this server. If that one is gone for good: enlist-primary server authorize NAME "
            "--no-may-have-secondaries, then allow it again.",
        )
    made = certificate()
    levels.certify(tx, account, id, fingerprint, made)
    record(tx, account, "server.certify", about_server(id), PRIMARY_ITSELF, now, "", lower_primary=fingerprint)
    return made


def bequeath(tx: Transaction, account: str, id: str, bequest: Bequest | None, required: bool) -> None:
    """Notes what becomes of what was set below a server that is about to end; part of that decision.

    Refused with BEQUEST_REQUIRED where a primary stands below it and nothing was said.
    """
    if levels.middle(tx, account, id).lower_key is not None and bequest is None and required:
        raise Refused(
            Reason.BEQUEST_REQUIRED,
            "A primary stands below this server. Say what becomes of what was set for the servers there: "
            "--below keep (it stays, and may be changed there), freeze (it stays, with its locks), or delete.",
        )
    levels.bequeath(tx, account, id, bequest)


def record_below(tx: Transaction, account: str, batch: Sequence[DescendantRecord]) -> None:
    """What was said of servers below: an observation. First who is there, then what they reported: of others nothing is kept."""
    levels.save_below(tx, [each.row for each in batch if each.row is not None])
    reports.record(tx, account, [word for each in batch for word in each.reports])
    for each in batch:
        if each.row is None:  # last: how its runs ended is kept
            levels.forget_below(tx, account, each.via, [each.path])
