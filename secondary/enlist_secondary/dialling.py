"""The way to an open link: what the SSL port serves is verified, pinned, and dialled at the address that served it."""

from __future__ import annotations

import grpc.aio

from enlist import __version__, channel
from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist.runtime.logs import Log
from enlist.runtime.terminal import escape
from enlist.transport.dialer import Dialer
from enlist.v1 import hierarchy_pb2
from enlist_secondary import checks, state
from enlist_secondary.checks import Clock, SslPort
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.connection.link import Link, open_link
from enlist_secondary.identity import Identity
from enlist_secondary.meeting import meet, raise_alarm
from enlist_secondary.work import Work

NAME_LIMIT = 300
"""Characters that are kept of a name which a primary gives itself or this server."""

_LOG = Log("enlist.secondary")


async def connect(dialer: Dialer, config: SecondaryConfig, identity: Identity, now: Clock, work: Work | None = None) -> Link:
    """Opens the link; the identity must hold a certificate. Without `work` it is opened only to see that it can be.

    Refuses with the primary's reason, with what the checks found on the way, or with CERTIFICATE_INVALID: all is well at the SSL
    port until it sees this server's certificate.
    """
    dialer = dialer.attempt()
    address, (endpoint, pin) = await _look(dialer, config, identity, now)
    try:
        return await _open(dialer.channel(endpoint, pin, identity.client()), address, config, identity, now, work)
    except Refused as refused:
        if refused.reason is not Reason.UNREACHABLE:
            raise
    await _verified(dialer, address, config, identity, now)  # the primary may have gone down in between
    raise Refused(Reason.CERTIFICATE_INVALID, f"{address} ends the connection when it sees this server's certificate.")


async def _remembered(dialer: Dialer, config: SecondaryConfig, identity: Identity, now: Clock) -> state.State:
    """What was learnt at the configured address: an SSL port remembered of another one would hide who answers at this one."""
    kept = state.load(config.folder)
    if kept.met_at == str(config.address):
        return kept
    primary = await meet(dialer, config, identity.authority, now)
    return kept.met(primary.address, primary.name, primary.ssl_port)


async def _open(
    dialled: grpc.aio.Channel, address: Address, config: SecondaryConfig, identity: Identity, now: Clock, work: Work | None
) -> Link:
    began = int(now())
    hello = _hello(config)
    if work is not None:
        work.introduce(hello)
    link = await open_link(dialled, identity, hello, work)
    primary, name = escape(link.welcome.primary_name[:NAME_LIMIT]), escape(link.welcome.display_name[:NAME_LIMIT])
    _LOG.info("link open", primary=primary, address=address, server=name)
    after = state.State.admitted if work is None else state.State.linked
    try:
        await state.update(config.folder, lambda kept: after(kept, primary, name, identity.server_id, began))
    except BaseException:
        await link.close()
        raise
    return link


def _hello(config: SecondaryConfig) -> hierarchy_pb2.Hello:
    kept = state.load(config.folder)
    hello = hierarchy_pb2.Hello(protocol=channel.PROTOCOL, version=__version__, server_address=config.server_address)
    for alarm in kept.alarms:
        if alarm.time >= kept.alarms_told_at:
            told = hello.identity_alarms.add(address=alarm.address, fingerprint=alarm.fingerprint)
            told.time.seconds = alarm.time
    return hello


async def _look(dialer: Dialer, config: SecondaryConfig, identity: Identity, now: Clock) -> tuple[Address, SslPort]:
    """What is served at the SSL port, where it was or where the primary now says it is, once it is verified."""
    kept = await _remembered(dialer, config, identity, now)
    if kept.ssl_port:
        try:
            return await _verified(dialer, Address(config.address.host, kept.ssl_port), config, identity, now)
        except Refused as refused:
            if refused.reason is Reason.NAME_NOT_FOUND:  # nor is it at the other port
                raise
    primary = await meet(dialer, config, identity.authority, now)
    return await _verified(dialer, primary.ssl_address, config, identity, now)


async def _verified(
    dialer: Dialer, address: Address, config: SecondaryConfig, identity: Identity, now: Clock
) -> tuple[Address, SslPort]:
    try:
        return address, await checks.reach_ssl_port(dialer, address, identity.authority, now)
    except Refused as refused:
        await raise_alarm(config, refused, "", int(now()), address)
        raise
