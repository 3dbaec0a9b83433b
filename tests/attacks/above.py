"""Primaries above, of which a test holds the keys: their steps on the way up, and the sets they sign."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from enlist import certificates, documents
from enlist.documents import Item, SetVersion
from enlist.layers import Layer, encode
from enlist.v1 import document_pb2
from enlist_primary.authority.signer import Signer
from enlist_primary.model.levels import UpperState
from enlist_primary.rpc.context import Context
from tests.support.pretender import new_signer
from tests.support.sets import signed_by

PRESENT, KEPT = document_pb2.ANCESTOR_STATE_PRESENT, document_pb2.ANCESTOR_STATE_KEPT
MADE_AT = 1_700_000_000


@dataclass
class Above:
    """A primary right above another one, whose host is the server `server` of its account."""

    lower: Signer
    name: str = "upper"
    account: str = "corp.example"
    server: str = "m" * 10
    signer: Signer = field(default_factory=new_signer)
    begins: int = MADE_AT
    """When its cross-certificate begins."""

    @property
    def fingerprint(self) -> str:
        """As origin of its sets."""
        return self.signer.authority.primary_id

    def consent(self, number: int, state: Any = PRESENT) -> tuple[bytes, bytes]:
        """The lower primary's word on whether it stands under this one, and its signature."""
        said = document_pb2.Consent(parent_primary_id=self.signer.authority.primary_id, epoch=1, number=number, state=state)
        return said.SerializeToString(), self.lower.sign_consent(said.SerializeToString())

    def step(self, number: int = 1, state: Any = PRESENT) -> document_pb2.Ancestor:
        """One step up, as both ends have signed it."""
        consent, signature = self.consent(number, state)
        return document_pb2.Ancestor(
            primary_name=self.name,
            authority_certificate=certificates.der(self.signer.authority.certificate),
            cross_certificate=self.signer.cross_certificate(self.lower.authority, self.account, self.server, self.begins),
            consent=consent,
            consent_signature=signature,
        )

    def set(self, number: int, *items: Item, **changes: str) -> document_pb2.SignedSet:
        """A set that it signs for the lower primary's host, or for somebody else."""
        whom = {"account": self.account, "target": self.server, **changes}
        encoded = documents.encode(version=SetVersion(1, number), encoded_items=documents.encode_items(items), **whom)
        return signed_by(self.signer, encoded)


async def stand_under(own: Context) -> Above:
    """Puts a primary under one that the test signs for."""
    above = Above(own.signer)
    lower = await own.upper.join(certificates.der(above.signer.authority.certificate), above.name, UpperState.PRESENT, own.now())
    assert lower is not None
    step = above.step()
    step.consent, step.consent_signature = lower.consent, lower.consent_signature
    await own.upper.ascend(way_up(step))
    return above


def way_up(*steps: document_pb2.Ancestor) -> document_pb2.Ancestry:
    """The nearest first."""
    return document_pb2.Ancestry(ancestors=steps)


def policy(kind: str, number: int, settings: dict[str, Any], *locks: str) -> tuple[Item, bytes]:
    """A layer of a policy, and its body."""
    body = encode(Layer(settings, locks))
    return Item(f"policy/{kind}", "/", number, documents.digest(body)), body
