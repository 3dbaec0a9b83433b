"""Proof that a caller holds a key: a signature over label, RPC, challenge, authority key and the hash of the request.

The challenge keeps a proof from being used again later, the authority's key from being used at another primary, the RPC and the
request from being used for something else. Pure: no clock, no I/O.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from enlist.reasons import Reason, Refused

CHALLENGE_LIFETIME = 120
"""Seconds for which a challenge is good."""

_LABEL = b"enlist-proof-v1"
_CHALLENGE_LABEL = b"enlist-challenge-v1"
_NONCE = 16
_TAG = 32
_SIGNATURE = ec.ECDSA(hashes.SHA256())


def _message(rpc: str, challenge: bytes, authority_key: bytes, request: bytes) -> bytes:
    parts = (_LABEL, rpc.encode(), challenge, authority_key, hashlib.sha256(request).digest())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def sign(key: ec.EllipticCurvePrivateKey, rpc: str, challenge: bytes, authority_key: bytes, request: bytes) -> bytes:
    """The signature for `Proof.signature`; `rpc` is the method's name alone, `request` the serialised inner message."""
    return key.sign(_message(rpc, challenge, authority_key, request), _SIGNATURE)


def verify(
    key: ec.EllipticCurvePublicKey, rpc: str, challenge: bytes, authority_key: bytes, request: bytes, signature: bytes
) -> None:
    """Refuses a signature that `key` did not make for exactly this."""
    try:
        key.verify(signature, _message(rpc, challenge, authority_key, request), _SIGNATURE)
    except InvalidSignature:
        raise Refused(Reason.PROOF_INVALID, "The request is not signed by the key it names.") from None


def new_challenge(secret: bytes, now: int, random_bytes: Callable[[int], bytes]) -> bytes:
    """A challenge that any primary holding `secret` can check without having stored it: time, nonce, HMAC-SHA-256."""
    body = now.to_bytes(8, "big") + random_bytes(_NONCE)
    return body + _tag(secret, body)


def check_challenge(secret: bytes, challenge: bytes, now: int) -> None:
    """Refuses a challenge that was not made with `secret` within the last two minutes."""
    body, tag = challenge[:-_TAG], challenge[-_TAG:]
    if len(body) != 8 + _NONCE or not hmac.compare_digest(tag, _tag(secret, body)):
        raise Refused(Reason.PROOF_INVALID, "The challenge is not one of this primary's.")
    if not 0 <= now - int.from_bytes(body[:8], "big") <= CHALLENGE_LIFETIME:
        raise Refused(Reason.CHALLENGE_EXPIRED, "The challenge has run out; ask for another and sign again.")


def _tag(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, _CHALLENGE_LABEL + body, "sha256")
