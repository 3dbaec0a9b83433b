"""TrustService: what people decide about servers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from enlist import certificates, names, proofs
from enlist.joinline import JoinLine
from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.v1 import server_pb2, trust_pb2_grpc
from enlist.v1 import trust_pb2 as pb
from enlist_primary.links.link import still_trusted
from enlist_primary.messages import servers as render
from enlist_primary.model import accounts, api_keys
from enlist_primary.model.levels import Bequest
from enlist_primary.model.servers import Event, Server
from enlist_primary.model.users import Actor
from enlist_primary.operations import enrolment, servers
from enlist_primary.rpc.access import caller
from enlist_primary.rpc.context import Context
from enlist_primary.rpc.hierarchy import server_of
from enlist_primary.store import servers as rows
from enlist_primary.store.database import Transaction

INVITEES = 1000
_BEQUESTS = {number: Bequest(name) for name, number in render.BEQUESTS.items()}


class Trust(trust_pb2_grpc.TrustServiceServicer):
    """Decides; links, streams that wait and the levels above learn of it from the change log."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def InviteServers(self, request: pb.InviteServersRequest, context: Any) -> pb.InviteServersResponse:
        account = caller().require(accounts.from_resource(request.parent))
        if not 0 < len(request.invitees) <= INVITEES:
            raise Refused(Reason.INVALID_ARGUMENT, f"From 1 to {INVITEES} servers are invited at once.")
        own = self._context
        keys = [api_keys.make(own.new_id(), own.random_bytes) for _ in request.invitees]
        wanted = list(zip(request.invitees, map(api_keys.parse, keys), strict=True))
        invited = await own.database.write(account, _invite, account, wanted, caller().actor, own.new_id, own.now())
        made = zip(invited, keys, strict=True)
        return pb.InviteServersResponse(
            invitations=[pb.Invitation(server=own.server(row), join_line=self._join_line(row, key)) for row, key in made]
        )

    def _join_line(self, server: Server, key: str) -> str:
        own = self._context
        address = Address(own.addresses[0], own.ports.api)
        return str(JoinLine(address, server.account, own.signer.authority.fingerprint, key))

    async def AuthorizeServer(self, request: pb.AuthorizeServerRequest, context: Any) -> server_pb2.Server:
        account, id = server_of(request.name)
        own, actor = self._context, caller().actor
        matches = await self._compare(account, id, request.comparison_code)
        group = request.group
        may = request.may_have_secondaries if request.HasField("may_have_secondaries") else None
        left = _BEQUESTS.get(request.bequest)
        row = await own.database.write(account, servers.authorize, account, id, matches, actor, own.now(), group, may, left)
        return own.server(row)

    async def _compare(self, account: str, id: str, code: str) -> bool | None:
        """Whether the code that was read out is the server's, or None if none was. Keys of a row never change while it waits."""
        if not code:
            return None
        row = await self._context.database.read(rows.load, account, id)
        if row.public_key is None:
            return False
        primary_id = self._context.signer.authority.primary_id
        return certificates.same_code(code, certificates.comparison_code(primary_id, row.public_key, account))

    async def DenyServer(self, request: pb.DenyServerRequest, context: Any) -> server_pb2.Server:
        return await self._decide(request.name, Event.DENY, request.reason)

    async def SuspendServer(self, request: pb.SuspendServerRequest, context: Any) -> server_pb2.Server:
        return await self._decide(request.name, Event.SUSPEND, request.reason)

    async def ResumeServer(self, request: pb.ResumeServerRequest, context: Any) -> server_pb2.Server:
        return await self._decide(request.name, Event.RESUME, "")

    async def RevokeServer(self, request: pb.RevokeServerRequest, context: Any) -> server_pb2.Server:
        return await self._decide(request.name, Event.REVOKE, request.reason, _BEQUESTS.get(request.bequest))

    async def RemoveServer(self, request: pb.RemoveServerRequest, context: Any) -> server_pb2.Server:
        return await self._decide(request.name, Event.REMOVE, request.reason, _BEQUESTS.get(request.bequest))

    async def WithdrawServer(self, request: pb.WithdrawServerRequest, context: Any) -> server_pb2.Server:
        return await self._decide(request.name, Event.WITHDRAW, request.reason)

    async def _decide(self, name: str, event: Event, reason: str, bequest: Bequest | None = None) -> server_pb2.Server:
        account, id = server_of(name)
        own, actor = self._context, caller().actor
        row = await own.database.write(account, servers.decide, account, id, event, actor, own.now(), "", reason, "", bequest)
        return own.server(row)

    def _check_held(self, proof: server_pb2.Proof, public_key: bytes) -> None:
        """Refuses a caller that does not hold the key of its certificate now."""
        signer, now = self._context.signer, self._context.now()
        proofs.check_challenge(signer.challenge_secret, proof.challenge, now)
        key, authority = certificates.load_public_key(public_key), signer.authority.public_key
        proofs.verify(key, "RenewCertificate", proof.challenge, authority, b"", proof.signature)

    async def RenewCertificate(self, request: pb.RenewCertificateRequest, context: Any) -> pb.RenewCertificateResponse:
        own, standing = self._context, caller().server
        self._check_held(request.proof, caller().public_key)
        row = await own.database.read(still_trusted, standing)
        if row.public_key is None or row.key != standing.key:
            raise Refused(Reason.SERVER_UNKNOWN, "This server is not known here. It must register again.")
        key = certificates.load_public_key(row.public_key)
        lifetime, now = own.certificate_lifetime, own.now()
        return pb.RenewCertificateResponse(certificate=own.signer.issue_secondary(key, row.account, row.id, lifetime, now))


def _invite(
    tx: Transaction,
    account: str,
    wanted: Sequence[tuple[pb.Invitee, api_keys.Presented]],
    by: Actor,
    new_id: enrolment.NewId,
    now: int,
) -> list[Server]:
    """All of them or none: one operation, one savepoint."""
    return [
        enrolment.invite(tx, account, each.display_name or None, each.group or names.ROOT_GROUP, key, by, new_id, now)
        for each, key in wanted
    ]
