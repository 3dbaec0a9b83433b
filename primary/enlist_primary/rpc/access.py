"""Who may call what.

`TABLE` maps every RPC to the callers it serves; what is not in it is refused. Who calls is decided here once per RPC: by the
certificate at the SSL port, by the token at the API port, by the socket for the local administrator.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio

from enlist import certificates
from enlist.reasons import Reason, Refused
from enlist.runtime import standings
from enlist.runtime.terminal import escape
from enlist_primary.changes.directory import Directory
from enlist_primary.ingest.observations import Observations
from enlist_primary.model import api_keys, users
from enlist_primary.model.accounts import PRIMARY, unknown
from enlist_primary.model.servers import State
from enlist_primary.model.users import Actor, Role, User
from enlist_primary.rpc import errors
from enlist_primary.rpc.attempts import Attempts
from enlist_primary.store import users as user_rows
from enlist_primary.store.database import Database
from enlist_primary.store.servers import Standing

HEAR_OUT_TIMEOUT = 1.0
"""Seconds that a stream about to be refused gets to send its first message."""

UNARY_TIMEOUT = 30.0
"""Seconds within which a request's one message must be here, and a unary RPC be done."""


class Kind(StrEnum):
    """The kinds of callers. A secondary that is not trusted is `UNTRUSTED`, whatever its state."""

    ANYONE = "anyone"
    UNTRUSTED = "untrusted"
    TRUSTED = "trusted"
    VIEWER = "viewer"
    ADMINISTRATOR = "administrator"
    LOCAL = "local"
    UPSTREAM = "upstream"


_ANYONE = frozenset(Kind) - {Kind.UPSTREAM}
_TRUSTED = frozenset({Kind.TRUSTED})
_READ = frozenset({Kind.VIEWER, Kind.ADMINISTRATOR, Kind.LOCAL})
_DECIDE = frozenset({Kind.ADMINISTRATOR, Kind.LOCAL})

_SERVICES: Mapping[str, Mapping[str, frozenset[Kind]]] = {
    "enlist.v1.RegistrationService": {
        "DescribePrimary": _ANYONE,
        "Validate": _ANYONE,
        "Register": _ANYONE,
        "AwaitAuthorization": _ANYONE,
        "Leave": _ANYONE,
    },
    "enlist.v1.TrustService": {
        "InviteServers": _DECIDE,
        "AuthorizeServer": _DECIDE,
        "DenyServer": _DECIDE,
        "SuspendServer": _DECIDE,
        "ResumeServer": _DECIDE,
        "RevokeServer": _DECIDE,
        "RemoveServer": _DECIDE,
        "WithdrawServer": _DECIDE,
        "RenewCertificate": _TRUSTED,
    },
    "enlist.v1.HierarchyService": {
        "Connect": _TRUSTED,
        "GetStatus": _READ,
        "CreateGroup": _DECIDE,
        "RemoveGroup": _DECIDE,
        "MoveGroup": _DECIDE,
        "UpdateGroup": _DECIDE,
        "ListGroups": _READ,
        "ListServers": _READ,
        "ListBelow": _READ,
        "GetServer": _READ,
        "RenameServer": _DECIDE,
        "MoveServer": _DECIDE,
        "LabelServer": _DECIDE,
        "ListOrigins": _READ,
        "ClearOrigin": _DECIDE,
    },
    "enlist.v1.AccountService": {
        "CreateAccount": _DECIDE,
        "GetAccount": _READ,
        "ListAccounts": _READ,
        "UpdateAccount": _DECIDE,
        "CreateApiKey": _DECIDE,
        "ListApiKeys": _READ,
        "RevokeApiKey": _DECIDE,
    },
    "enlist.v1.PolicyService": {
        "SetPolicy": _DECIDE,
        "PlanPolicy": _READ,
        "RemovePolicy": _DECIDE,
        "RollBackPolicy": _DECIDE,
        "GetPolicy": _READ,
        "ListPolicies": _READ,
        "ListPolicyRevisions": _READ,
        "ListPolicyReports": _READ,
        "WatchPolicy": _READ,
        "ExplainPolicy": _READ,
    },
    "enlist.v1.TaskService": {
        "RunTask": _DECIDE,
        "GetTask": _READ,
        "ListTasks": _READ,
        "CancelTask": _DECIDE,
        "ListTaskResults": _READ,
        "WatchTask": _READ,
    },
    "enlist.v1.UpstreamService": {"Attach": frozenset({Kind.UPSTREAM})},
    "enlist.v1.JournalService": {"ListEntries": _READ, "VerifyJournal": _READ},
    "grpc.health.v1.Health": {"Check": _ANYONE, "Watch": _ANYONE, "List": _ANYONE},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": _ANYONE},
}

TABLE: Mapping[str, frozenset[Kind]] = MappingProxyType(
    {f"/{service}/{method}": kinds for service, methods in _SERVICES.items() for method, kinds in methods.items()}
)


@dataclass(frozen=True)
class Caller:
    """Who calls: the kind, the address it comes from (empty on a socket), and the server, or the user, that it is."""

    kind: Kind
    source: str
    standing: Standing | None = None
    user: User | None = None
    local_name: str = ""
    certificate_ends: int = 0
    public_key: bytes = b""
    """The key of the certificate it showed, SubjectPublicKeyInfo, DER: a resumed TLS session proves nothing about it."""

    @property
    def actor(self) -> Actor:
        """For the journal."""
        if self.user is not None:
            return Actor(f"{self.user.name} ({self.user.id})", "token", self.source)
        return Actor(f"local:{self.local_name}", "admin.sock", "")

    @property
    def server(self) -> Standing:
        """The trusted server that calls."""
        assert self.standing is not None, "TABLE lets only trusted servers here"
        return self.standing

    def sees(self, account: str) -> bool:
        """Whether the account is for this caller's eyes."""
        return self.kind is Kind.LOCAL or (self.user is not None and self.user.sees(account))

    def require(self, account: str) -> str:
        """The account, or the refusal that one which is not there gets."""
        if not self.sees(account):
            raise unknown(account)
        return account

    def require_all(self) -> None:
        """Refuses whoever does not stand over all accounts."""
        if not self.sees(PRIMARY):
            raise Refused(Reason.NOT_ALLOWED, "Only an administrator of the primary itself may do this.")


_caller: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """Who makes the RPC that runs in this task."""
    return _caller.get()


class Access(grpc.aio.ServerInterceptor):
    """Stands before every RPC: finds out who calls, asks the table, and turns exceptions into refusals.

    The handler is wrapped because an interceptor itself sees neither certificate nor address.
    """

    def __init__(
        self,
        directory: Directory,
        database: Database,
        attempts: Attempts,
        observations: Observations,
        clock: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._database = database
        self._attempts = attempts
        self._observations = observations
        self._clock = clock
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wraps the handler of one RPC, once per method."""
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None  # gRPC answers UNIMPLEMENTED by itself
            self._wrapped[method] = _wrap(handler, method, self._admit)
        return self._wrapped[method]

    async def _admit(self, method: str, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        found = await self.identify(context)
        _caller.set(found)
        allowed = TABLE.get(method, frozenset())
        if found.kind not in allowed:
            raise _refusal(found, allowed)

    async def identify(self, context: grpc.aio.ServicerContext[Any, Any]) -> Caller:
        """Who calls. A certificate or token that is presented must be good: nobody falls back to being a stranger."""
        peer = unquote(context.peer())
        metadata = dict(context.invocation_metadata() or ())
        if peer.startswith("unix:"):
            # The listeners of the two sockets differ by their credentials: gRPC does not name the socket that was dialled.
            if context.auth_context().get("transport_security_type") != [b"insecure"]:
                return Caller(Kind.UPSTREAM, "")
            return Caller(Kind.LOCAL, "", local_name=escape(_text(metadata.get("enlist-local-user"))[:63]) or "administrator")
        source = _address(peer)
        for certificate in context.auth_context().get("x509_pem_cert") or ():
            return await self._secondary(certificate, source)
        token = _text(metadata.get("authorization"))
        return await self._user(token, source) if token else Caller(Kind.ANYONE, source)

    async def _secondary(self, pem: bytes, source: str) -> Caller:
        certificate = certificates.load_pem(pem)
        identity = certificates.server_identity(certificate)
        if identity is None:
            raise Refused(Reason.CERTIFICATE_INVALID, "The certificate is not a server's.")
        ends = certificates.ends_at(certificate)
        if self._clock() >= ends:  # the connection was made before; TLS has looked only then
            raise Refused(Reason.CERTIFICATE_EXPIRED, "The server's certificate has run out. Fetch a new one.")
        public_key = certificates.spki(certificates.key_of(certificate))
        standing = await self._directory.find(identity.account, identity.server_id, certificates.fingerprint(public_key))
        if standing is None:
            raise Refused(Reason.SERVER_UNKNOWN, "This server is not known here. It must register again.")
        kind = Kind.TRUSTED if standing.state is State.TRUSTED else Kind.UNTRUSTED
        return Caller(kind, source, standing, certificate_ends=ends, public_key=public_key)

    async def _user(self, header: str, source: str) -> Caller:
        self._attempts.check(source)
        token = users.parse_token(header.removeprefix("Bearer "))
        user = await self._database.read(user_rows.find, token.user_id) if token else None
        if user is None or token is None or not api_keys.same_secret(user.token_hash, token.secret):
            refused = Refused(Reason.NOT_LOGGED_ON, "The token is not valid.")
            self._attempts.count(source, refused)
            self._observations.refused(PRIMARY, refused.reason, source, int(self._clock()))
            raise refused
        kind = Kind.ADMINISTRATOR if user.role is Role.ADMINISTRATOR else Kind.VIEWER
        return Caller(kind, source, user=user)


def _refusal(found: Caller, allowed: frozenset[Kind]) -> Refused:
    if found.kind is Kind.UNTRUSTED and Kind.TRUSTED in allowed and found.standing is not None:
        return standings.not_trusted(found.standing.state, found.standing.since, found.standing.reason or "")
    if found.kind is Kind.ANYONE:
        return Refused(Reason.NOT_LOGGED_ON, "This needs a token (metadata authorization: Bearer ...), or a server's certificate.")
    return Refused(Reason.NOT_ALLOWED, f"This is not for a caller of the kind {found.kind}.")


def _text(value: str | bytes | None) -> str:
    return value if isinstance(value, str) else ""


def _address(peer: str) -> str:
    """The address in gRPC's name for a peer, `ipv4:127.0.0.1:4711` or `ipv6:[::1]:4711`; a mapped IPv4 address as IPv4."""
    host = peer.partition(":")[2].rpartition(":")[0].strip("[]")
    return host.removeprefix("::ffff:") if "." in host else host


def _wrap(handler: Any, method: str, admit: Callable[[str, Any], Awaitable[None]]) -> Any:
    """The same handler behind `admit`, with every exception turned into a refusal and unary RPCs under a deadline.

    To gRPC every RPC here takes a stream (on the wire there is no difference), so that the caller is admitted before a message is
    read, and no request comes so slowly that it is never over.
    """
    behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    decode = None if handler.request_streaming else handler.request_deserializer
    generates = inspect.isasyncgenfunction(behaviour)

    async def guarded(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            async with asyncio.timeout(UNARY_TIMEOUT) as deadline:
                await admit(method, context)
                request = await _message(context, decode) if decode else requests
                if handler.request_streaming or handler.response_streaming:
                    deadline.reschedule(None)
                if generates:
                    return await _write_all(context, behaviour(request, context))
                return await behaviour(request, context)
        except (asyncio.CancelledError, grpc.aio.AbortError, grpc.aio.BaseError):
            raise
        except TimeoutError:
            await errors.abort(context, Refused(Reason.TIMED_OUT, "The primary did not get this done in time. Try again."))
        except Exception as error:
            if handler.request_streaming:
                await _hear_out(context)
            await errors.abort(context, errors.foreseen(error, method))

    make = grpc.stream_stream_rpc_method_handler if handler.response_streaming else grpc.stream_unary_rpc_method_handler
    return make(guarded, None if decode else handler.request_deserializer, _prepared(handler.response_serializer))


def _prepared(serialise: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """A serialiser that takes bytes for what they are: what many servers get is serialised once."""
    return lambda message: message if isinstance(message, bytes) else serialise(message)


async def _hear_out(context: grpc.aio.ServicerContext[Any, Any]) -> None:
    """Takes the message that is on its way before a stream is refused.

    grpc.aio's client reports a bare INTERNAL, not the refusal, if the call ends before its first write.
    """
    with suppress(TimeoutError, grpc.aio.UsageError):
        async with asyncio.timeout(HEAR_OUT_TIMEOUT):
            await context.read()


async def _message(context: grpc.aio.ServicerContext[Any, Any], decode: Callable[[bytes], Any]) -> Any:
    """The one message of a request; a missing one counts as empty, as it does to protobuf."""
    data = await context.read()
    return decode(b"" if data is grpc.aio.EOF else data)


async def _write_all(context: grpc.aio.ServicerContext[Any, Any], messages: AsyncGenerator[Any, None]) -> None:
    async with aclosing(messages):
        async for message in messages:
            await context.write(message)
