"""Rows into messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from enlist import certificates, documents
from enlist.ancestry import Above
from enlist.certificates import Authority
from enlist.names import resource
from enlist.v1 import account_pb2, document_pb2, hierarchy_pb2, journal_pb2, registration_pb2, server_pb2, trust_pb2
from enlist_primary.model.accounts import Account
from enlist_primary.model.api_keys import ApiKey, Kind
from enlist_primary.model.journal import JournalEntry
from enlist_primary.model.levels import BelowServer, Bequest, Upper, UpperState
from enlist_primary.model.reports import Word
from enlist_primary.model.servers import Server, State
from enlist_primary.store.groups import Group
from enlist_primary.store.observations import Seen

STATES = {state: server_pb2.ServerState.Value(f"SERVER_STATE_{state.name}") for state in State}
BEQUESTS = {str(each): trust_pb2.Bequest.Value(f"BEQUEST_{each.name}") for each in Bequest}
KINDS = {kind: account_pb2.ApiKeyKind.Value(f"API_KEY_KIND_{kind.name}") for kind in Kind}


def moment(seconds: int | None) -> Timestamp | None:
    """Unix seconds as a message; None stays absent."""
    return None if seconds is None else Timestamp(seconds=seconds)


def code(authority: Authority, server: Server) -> str:
    """The server's comparison code; empty for an unused invitation."""
    if server.public_key is None:
        return ""
    return certificates.comparison_code(authority.primary_id, server.public_key, server.account)


def _remnant(word: Word) -> server_pb2.Remnant:
    return server_pb2.Remnant(kind=word.kind.removeprefix(documents.POLICY), message=word.message, time=moment(word.at))


def server(
    row: Server, authority: Authority, seen: Seen, connected: bool, remnants: Mapping[str, Word], set_refusal: str
) -> server_pb2.Server:
    """A server as people and tools see it; `remnants` is what it could not end of policies, by kind."""
    return server_pb2.Server(
        name=resource("accounts", row.account, "servers", row.id),
        id=row.id,
        display_name=row.name or "",
        account=row.account,
        group=row.group,
        state=STATES[row.state],
        state_time=moment(row.since),
        fingerprint=row.key or "",
        comparison_code=code(authority, row),
        connected=connected,
        connected_time=moment(max(seen.connected_at or 0, seen.disconnected_at or 0) or None),
        source=row.source or "",
        server_address=(row.server_address if seen.server_address is None else seen.server_address) or "",
        version=seen.version or row.version or "",
        create_time=moment(row.created_at),
        expire_time=moment(row.expires_at),
        revision=row.revision,
        asked_with=row.asked_with or "",
        reason=row.reason or "",
        labels=row.labels,
        kinds=(seen.kinds or "").split(),
        may_have_secondaries=row.may_have_secondaries,
        lower_primary=row.child_primary_id or "",
        remnants=[_remnant(remnants[kind]) for kind in sorted(remnants)],
        set_refusal=set_refusal,
    )


def below(row: BelowServer, unknown_since: int | None) -> hierarchy_pb2.BelowServer:
    """A server below a middle server; `unknown_since` is since when nothing is known of it, None if it is known."""
    return hierarchy_pb2.BelowServer(
        path=row.path,
        display_name=row.name,
        place=row.place,
        state=STATES[row.state],
        connected=row.connected,
        connected_time=moment(row.connected_at),
        unknown_since=moment(unknown_since),
        comparison_code=row.code,
        kinds=row.kinds,
    )


def above(
    steps: Sequence[Above], parent: Upper | None, connected: bool, connected_at: int | None, refusal: str
) -> list[hierarchy_pb2.UpperPrimary]:
    """The primaries above this one; also one that has not certified it yet, or will not.

    The rest is about the nearest: whether the link to it is open, since when that is so, and why it refuses this one.
    """
    found = [_above(each.name, each.authority, each.state) for each in steps]
    if not found and parent is not None and parent.state is UpperState.PRESENT:
        found = [_above(parent.name, certificates.read_authority(parent.authority))]
    for nearest in found[:1]:
        nearest.connected, nearest.refusal = connected, refusal
        if connected_at is not None:
            nearest.connected_time.seconds = connected_at
    return found


def _above(
    name: str, authority: Authority, state: document_pb2.AncestorState.ValueType = document_pb2.ANCESTOR_STATE_UNSPECIFIED
) -> hierarchy_pb2.UpperPrimary:
    return hierarchy_pb2.UpperPrimary(
        primary_name=name, fingerprint=authority.fingerprint, primary_id=authority.primary_id, state=state
    )


def enrolment(row: Server, authority: Authority, contact: str, certificate: bytes) -> registration_pb2.Enrolment:
    """A server as it sees itself."""
    return registration_pb2.Enrolment(
        server_id=row.id,
        display_name=row.name or "",
        state=STATES[row.state],
        state_time=moment(row.since),
        comparison_code=code(authority, row),
        contact=contact,
        expire_time=moment(row.expires_at),
        certificate=certificate,
        reason=row.reason or "",
        bequest=BEQUESTS.get(row.bequest or "", trust_pb2.BEQUEST_UNSPECIFIED),
    )


def account(row: Account) -> account_pb2.Account:
    """An account."""
    return account_pb2.Account(
        name=resource("accounts", row.domain),
        domain=row.domain,
        contact=row.contact or "",
        default_api_key=row.default_api_key,
        create_time=moment(row.created_at),
        head=row.head,
        landing_group=row.landing_path,
    )


def api_key(row: ApiKey) -> account_pb2.ApiKey:
    """An API key without its secret."""
    return account_pb2.ApiKey(
        name=resource("accounts", row.account, "apiKeys", row.id),
        id=row.id,
        account=row.account,
        kind=KINDS[row.kind],
        uses=row.uses,
        max_uses=row.max_uses or 0,
        networks=row.networks,
        group=row.group,
        create_time=moment(row.created_at),
        expire_time=moment(row.expires_at),
        revoke_time=moment(row.revoked_at),
        server_id=row.server_id or "",
    )


def group(row: Group) -> hierarchy_pb2.Group:
    """A group."""
    shown = hierarchy_pb2.Group(account=row.account, id=row.id, path=row.path)
    if row.window is not None:
        shown.window.start, shown.window.time_zone = row.window.start, row.window.zone
        shown.window.duration_seconds = row.window.seconds
    return shown


def journal_entry(entry: JournalEntry, entry_hash: bytes) -> journal_pb2.JournalEntry:
    """A decision."""
    return journal_pb2.JournalEntry(
        account=entry.account,
        number=entry.number,
        time=moment(entry.time),
        actor=entry.actor,
        method=entry.method,
        source=entry.source,
        action=entry.action,
        subject=entry.subject or f"accounts/{entry.account}",
        evidence=entry.evidence,
        detail={name: str(value) for name, value in entry.detail.items()},
        hash=entry_hash,
    )
