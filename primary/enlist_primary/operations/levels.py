"""Decisions about levels: under which primary this one stands, which primaries stand under it, and what those leave."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from enlist import certificates
from enlist.ancestry import Above
from enlist.certificates import CLOCK_TOLERANCE, Authority
from enlist.documents import DesiredSet, Place
from enlist.origins import Memory
from enlist.reasons import Reason, Refused
from enlist.v1 import document_pb2
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.levels import ANCESTOR_STATES, Bequest, DescendantRecord, Upper, UpperState
from enlist_primary.model.users import PRIMARY_ITSELF, Actor
from enlist_primary.operations import reports
from enlist_primary.operations.journalling import record
from enlist_primary.store import accounts, changes, levels, servers
from enlist_primary.store.changes import Coarse, about_server
from enlist_primary.store.database import Transaction

Sign = Callable[[bytes], bytes]

# --- Above ------------------------------------------------------------------------------------------------------------------


def stand_under(tx: Transaction, authority: bytes, primary_id: str, name: str, state: UpperState, sign: Sign, now: int) -> Upper:
    """Consents to stand under a primary, or notes that it does so no more; what holds already is returned as it is.

    Whoever has both this host's folders joined the two: it is journalled as the primary's own decision. What another primary
    above left before ends with this.
    """
    accounts.lock(tx, PRIMARY)
    known = levels.upper(tx)
    if known is not None and (known.authority, known.state) == (authority, state):
        if known.name != name:  # nothing but what it is called
            _save(tx, replace(known, name=name), now)
        return replace(known, name=name)
    if known is None and state is UpperState.GONE:
        raise Refused(Reason.NOT_FOUND, "No primary stands above this one.")
    action = "upper.join" if state is UpperState.PRESENT else "upper.leave"
    number = record(tx, PRIMARY, action, "", PRIMARY_ITSELF, now, upper=name, primary_id=primary_id, leaves=state.value)
    consent, signature = b"", b""
    if state is not UpperState.GONE:
        version = {"epoch": levels.epoch(tx), "number": number}
        consent = document_pb2.Consent(parent_primary_id=primary_id, state=ANCESTOR_STATES[state], **version).SerializeToString()
        signature = sign(consent)
    same = known is not None and known.authority == authority and state is not UpperState.GONE
    ancestry = known.ancestry if same and known is not None else b""
    if state is not UpperState.PRESENT:  # or it only asks anew: what was left holds until the primary above says who stands there
        ancestry = _renewed(ancestry, consent, signature)
    memory = known.memory if known is not None else Memory()
    if not ancestry:
        memory = memory.leaving(levels.held_versions(tx))
    changed = Upper(authority, name, state, consent, signature, ancestry, memory)
    _save(tx, changed, now)
    if not ancestry:
        levels.forget_upper_sets(tx, levels.upper_sets(tx))
    return changed


def _save(tx: Transaction, changed: Upper, now: int) -> None:
    levels.save_upper(tx, changed)
    changes.note_coarse(tx, PRIMARY, now, Coarse.ANCESTORS)


def _renewed(ancestry: bytes, consent: bytes, signature: bytes) -> bytes:
    """The ancestry with another word of this primary on its first step."""
    if not ancestry:
        return b""
    message = document_pb2.Ancestry.FromString(ancestry)
    message.ancestors[0].consent, message.ancestors[0].consent_signature = consent, signature
    return message.SerializeToString()


def ascend(tx: Transaction, ancestry: bytes, found: Sequence[Above], own: Authority, now: int) -> Upper | None:
    """Keeps who is above, as the parent said it and as `found` verified it, and drops the sets of other origins and steps.

    Refused as `Memory.after` does.
    """
    accounts.lock(tx, PRIMARY)
    known = levels.upper(tx)
    if known is None or known.state is not UpperState.PRESENT:
        return None
    held = levels.held_versions(tx)
    changed = replace(known, ancestry=ancestry, memory=known.memory.after(found, own, held))
    _save(tx, changed, now)
    levels.forget_upper_sets(tx, [place.origin for place in held.keys() - _places(found)])
    return changed


def _places(found: Sequence[Above]) -> set[Place]:
    return {above.origin.place for above in found}


def clear_origin(tx: Transaction, primary_id: str, present: Collection[str], by: Actor, now: int) -> Upper:
    """Forgets what is remembered of a primary, or, if the id is empty, of all but those `present`. Refused as `Memory.cleared`."""
    accounts.lock(tx, PRIMARY)
    known = levels.upper(tx)
    if known is None:
        raise Refused(Reason.NOT_FOUND, "No primary was ever above this one, so nothing is remembered.")
    changed = replace(known, memory=known.memory.cleared(primary_id, present))
    record(tx, PRIMARY, "origin.clear", "", by, now, primary_id=primary_id or "all")
    _save(tx, changed, now)
    changes.note_coarse(tx, PRIMARY, now, Coarse.ORIGINS)
    return changed


def hand_down(tx: Transaction, verified: DesiredSet, signed: bytes, bodies: Sequence[tuple[str, bytes]], now: int) -> None:
    """Keeps a set from above, unchanged, for the servers below. Refused as `Memory.check` does."""
    known = levels.upper(tx)
    if known is not None:
        known.memory.check(verified)
    levels.save_upper_set(tx, verified.origin, signed, bodies)
    changes.note_coarse(tx, PRIMARY, now, Coarse.ANCESTORS)


# --- Below ------------------------------------------------------------------------------------------------------------------


def allow(tx: Transaction, account: str, id: str, may: bool, bequest: Bequest | None, by: Actor, now: int) -> None:
    """Whether a primary on this server's host may stand under this one; `bequest` says what stays of it where it may no more."""
    accounts.lock(tx, account)
    server = servers.load(tx, account, id)
    if levels.middle(tx, account, id).may_have_secondaries is may:
        return
    if not may:
        bequeath(tx, account, id, bequest, now, required=True)
    action = "server.allow-secondaries" if may else "server.forbid-secondaries"
    left = bequest.value if bequest is not None and not may else None
    levels.allow(tx, account, id, may, record(tx, account, action, about_server(id), by, now, name=server.name, below=left))


def certify(
    tx: Transaction, account: str, id: str, child: Authority, above: Collection[str], make: Callable[[int], bytes], now: int
) -> bytes:
    """The cross-certificate for the primary on a server's host; the one it has, if that is still the newest over its key.

    `above` are the ids of all primaries from this one up; `make` takes the moment at which the certificate begins.

    Refused: NOT_ALLOWED where it was not granted, or for another primary than the one that stands there; WOULD_LOOP where this
    primary stands below that one already.
    """
    accounts.lock(tx, account)
    known = levels.middle(tx, account, id)
    if not known.may_have_secondaries:
        name = servers.load(tx, account, id).shown_name
        allow = f"enlist-primary server authorize {name} --may-have-secondaries"
        raise Refused(Reason.NOT_ALLOWED, f"This server may not have secondaries. Allow it with: {allow}")
    if child.primary_id in above:
        raise Refused(Reason.WOULD_LOOP, "That primary stands above this one already, or is this one: it cannot stand below too.")
    if known.child_primary_id == child.primary_id and _is_newest(tx, known.cross_certificate, child):
        return known.cross_certificate or b""
    if known.child_primary_id not in (None, child.primary_id):
        raise Refused(
            Reason.NOT_ALLOWED,
            "Another primary stands below this server. If that one is gone for good: enlist-primary server authorize NAME "
            "--no-may-have-secondaries, then allow it again.",
        )
    made = make(levels.next_not_before(tx, child.fingerprint, now - CLOCK_TOLERANCE))
    levels.certify(tx, account, id, child.primary_id, made)
    record(tx, account, "server.certify", about_server(id), PRIMARY_ITSELF, now, "", lower_primary=child.primary_id)
    return made


def _is_newest(tx: Transaction, cross_certificate: bytes | None, child: Authority) -> bool:
    """Whether it is the newest over the child's key: below an older one, every server refuses the step as stale."""
    if cross_certificate is None:
        return False
    begins = certificates.begins_at(certificates.load(cross_certificate))
    return begins == levels.last_not_before(tx, child.fingerprint)


def bequeath(tx: Transaction, account: str, id: str, bequest: Bequest | None, now: int, required: bool) -> None:
    """Notes what becomes of what was set below a server that is about to end; part of that decision.

    Refused with BEQUEST_REQUIRED where a primary stands below it and nothing was said.
    """
    known = levels.middle(tx, account, id)
    if known.child_primary_id is not None and bequest is None and required:
        raise Refused(
            Reason.BEQUEST_REQUIRED,
            "A primary stands below this server. Say what becomes of what was set for the servers there: "
            "--below keep (it stays, and may be changed there), freeze (it stays, with its locks), or delete.",
        )
    levels.bequeath(tx, account, id, bequest)
    if known.may_have_secondaries:
        changes.note(tx, account, now, changes.about_descendants(id))


def record_below(tx: Transaction, account: str, batch: Sequence[DescendantRecord], now: int) -> None:
    """What was said of servers below: an observation. First who is there, then what they reported: of others nothing is kept."""
    levels.save_below(tx, [each.row for each in batch if each.row is not None])
    words = [word for each in batch for word in each.reports]
    if words:
        reports.record(tx, account, words, now)
    for each in batch:
        if each.row is None:  # last: how its runs ended is kept
            levels.forget_below(tx, account, each.via, [each.path])
    changes.note_coarse(tx, account, now, Coarse.DESCENDANTS)
