"""A new certificate for the server's key, asked for over the connection of the link."""

from __future__ import annotations

import grpc.aio

from enlist import channel, proofs
from enlist.v1 import server_pb2, trust_pb2, trust_pb2_grpc
from enlist_secondary import checks
from enlist_secondary.identity import Identity

RENEW = "RenewCertificate"
"""The RPC that the proof names."""


async def renew(connection: grpc.aio.Channel, identity: Identity) -> bytes:
    """The certificate, DER. The request proves that the key is held now: a resumed TLS session does not."""
    challenge = (await checks.describe(connection)).challenge
    signature = proofs.sign(identity.key, RENEW, challenge, identity.authority.public_key, b"")
    request = trust_pb2.RenewCertificateRequest(proof=server_pb2.Proof(challenge=challenge, signature=signature))
    stub = trust_pb2_grpc.TrustServiceStub(connection)
    return (await channel.answer(stub.RenewCertificate(request, timeout=channel.RPC_TIMEOUT))).certificate
