"""Desired sets: what an origin signs for one server, and what a server makes of it. Takes bytes, does no I/O.

An origin is a primary on the way from the top down to the server. It signs, for each server directly under it, the whole list of
what it wants there. A set is bound to its target and carries a version: an older one never replaces a newer, and two of one version
say the same or somebody lies. What a newer set leaves out is not wanted any more. The bodies travel apart: they are authentic
through the SHA-256 in the signed list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError

from enlist import certificates, merkle, names
from enlist.reasons import Reason, Refused
from enlist.v1 import document_pb2 as pb

BODY_LIMIT = 1024 * 1024
"""Bytes in a body, at most."""
ITEM_LIMIT = 1000
"""Items in a set, at most."""
SET_LIMIT = 512 * 1024
"""Bytes in a set, at most."""
BESIDE_SET = 1024
"""Bytes of a signed set besides the set, at most: the signature, the path to what it covers, the salt and the origin."""
DIGEST_BYTES = 32
"""Bytes in a body's SHA-256."""
SALT_BYTES = 16
"""Bytes of `SignedSet.salt`."""

BODIES_LIMIT = 64 * 1024 * 1024
"""Bytes of the bodies that a set names, at most: what a server takes in memory until all are there."""

POLICY = "policy/"
TASK = "task/"
WINDOW = "window"

UNDER_WAY = frozenset({pb.TASK_STATE_QUEUED, pb.TASK_STATE_SENT, pb.TASK_STATE_RUNNING})
"""The states of a run that has not ended."""

_LABEL = b"enlist-desired-sets-v1\0"
_SIGNATURE = ec.ECDSA(hashes.SHA256())
_LARGEST = 2**62
_TEXT_LIMIT = 1200  # more characters than the path of any group


class SetVersion(NamedTuple):
    """What orders the sets of an origin: the epoch first, then the number of its account's journal."""

    epoch: int
    number: int

    def __str__(self) -> str:
        return f"epoch {self.epoch}, number {self.number}"


class ItemVersion(NamedTuple):
    """What an item is at one moment: see `ItemVersion` in the contract. `digest` is the body's SHA-256 in hexadecimal."""

    revision: int
    digest: str


class Place(NamedTuple):
    """Within what set versions are compared: the origin's primary id, its account, and the server there.

    An account's journal orders its sets; but one server's set that still holds may be older than another's.
    """

    origin: str
    account: str
    target: str


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is wanted: see `Item` in the contract. `digest` is the body's SHA-256, 32 bytes."""

    kind: str
    name: str
    revision: int
    digest: bytes
    confirm_seconds: int = 0

    @property
    def version(self) -> ItemVersion:
        """By what reports name it."""
        return ItemVersion(self.revision, self.digest.hex())


@dataclass(frozen=True)
class DesiredSet:
    """A set that has been verified. `origin` is the primary id of its origin."""

    origin: str
    account: str
    target: str
    version: SetVersion
    items: tuple[Item, ...]

    @property
    def place(self) -> Place:
        """Within what its version counts."""
        return Place(self.origin, self.account, self.target)

    @property
    def content(self) -> bytes:
        """What the set says, whatever its version."""
        return content(self.items)


class Origin(NamedTuple):
    """Whose sets a server accepts: the authority's key (SubjectPublicKeyInfo, DER), and for whom they must be made out."""

    public_key: bytes
    account: str
    target: str

    @property
    def primary_id(self) -> str:
        """The origin's name: until there are succession chains, its authority's key is its first."""
        return certificates.fingerprint(self.public_key)

    @property
    def place(self) -> Place:
        """Within what the versions of its sets count."""
        return Place(self.primary_id, self.account, self.target)


def digest(body: bytes) -> bytes:
    """By what a body is known: its SHA-256."""
    return hashlib.sha256(body).digest()


def is_digest(said: bytes) -> bool:
    """Whether it may be a body's SHA-256."""
    return len(said) == DIGEST_BYTES


def content(items: Sequence[Item]) -> bytes:
    """SHA-256 over the items in their order, each field behind its length."""
    total = hashlib.sha256()
    for item in items:
        numbers = f"{item.revision},{item.confirm_seconds}".encode()
        for part in (item.kind.encode(), item.name.encode(), numbers, item.digest):
            total.update(len(part).to_bytes(4, "big") + part)
    return total.digest()


def about(item: Item) -> tuple[str, str]:
    """Under which kind and name a server reports on it: each run of a task by itself, the layers of a policy together."""
    return item.kind, item.name if item.kind.startswith(TASK) else ""


def runs(items: Iterable[Item | pb.Item]) -> frozenset[tuple[str, str]]:
    """The runs of tasks among the items, by kind and id."""
    return frozenset((item.kind, item.name) for item in items if item.kind.startswith(TASK))


def is_outcome(report: pb.Report) -> bool:
    """Whether a report says how a run ended."""
    return report.kind.startswith(TASK) and report.task_state not in UNDER_WAY


def encode_items(items: Sequence[Item]) -> bytes:
    """The items as they stand in a serialised `DesiredSet`: the same bytes for every server that gets the same."""
    messages = [
        pb.Item(kind=i.kind, name=i.name, revision=i.revision, digest=i.digest, confirm_seconds=i.confirm_seconds) for i in items
    ]
    return pb.DesiredSet(items=messages).SerializeToString()


def encode(account: str, target: str, version: SetVersion, encoded_items: bytes) -> bytes:
    """A serialised `DesiredSet`. Serialised messages put one behind the other are their merger (protobuf, encoding)."""
    head = pb.DesiredSet(account=account, target=target, epoch=version.epoch, number=version.number)
    return head.SerializeToString() + encoded_items


def leaf(salt: bytes, desired_set: bytes) -> bytes:
    """What the tree has of a serialised set: to the others under the same signature it tells nothing."""
    return merkle.leaf(salt + desired_set)


def to_sign(root: bytes) -> bytes:
    """What an origin's signature covers: the root of the tree of serialised sets."""
    return _LABEL + root


def sign(authority_key: ec.EllipticCurvePrivateKey, root: bytes) -> bytes:
    """The origin's signature for `SignedSet.signature`."""
    return authority_key.sign(to_sign(root), _SIGNATURE)


def verify(signed: pb.SignedSet, origin: Origin) -> DesiredSet:
    """The set, once it is certain that this origin made it out for this server. Refused with SET_INVALID."""
    if len(signed.desired_set) > SET_LIMIT or signed.ByteSize() > SET_LIMIT + BESIDE_SET:  # with fields that nobody knows
        raise _invalid("is too large")
    root = merkle.root(leaf(signed.salt, signed.desired_set), signed.index, signed.size, signed.path)
    if root is None or len(signed.salt) != SALT_BYTES:
        raise _invalid("is not in the tree that is signed")
    try:
        certificates.load_public_key(origin.public_key).verify(signed.signature, to_sign(root), _SIGNATURE)
    except InvalidSignature:
        raise _invalid("is not signed by the primary it names") from None
    message = _parse(signed.desired_set)
    if (message.account, message.target) != (origin.account, origin.target) or not message.target:
        raise _invalid("is made out for another server")
    if not (0 < message.epoch < _LARGEST and 0 < message.number < _LARGEST) or len(message.items) > ITEM_LIMIT:
        raise _invalid("has a version or a length that no primary gives it")
    version = SetVersion(message.epoch, message.number)
    return DesiredSet(origin.primary_id, message.account, message.target, version, tuple(map(_item, message.items)))


def _parse(desired_set: bytes) -> pb.DesiredSet:
    try:
        return pb.DesiredSet.FromString(desired_set)
    except DecodeError:
        raise _invalid("cannot be read") from None


def _item(message: pb.Item) -> Item:
    plausible = _is_version(message.revision, message.digest) and 0 <= message.confirm_seconds < _LARGEST
    if not plausible or len(message.name) > _TEXT_LIMIT or not _named_well(message.kind, message.name):
        raise _invalid("has an item that no primary puts there")
    return Item(message.kind, message.name, message.revision, message.digest, message.confirm_seconds)


def encode_held(verified: DesiredSet) -> pb.Held:
    """A set that is held, as its holder names it."""
    return pb.Held(
        origin=verified.origin,
        epoch=verified.version.epoch,
        number=verified.version.number,
        content=verified.content,
        digests=sorted({item.digest for item in verified.items}),
        target=verified.target,
    )


def encode_version(version: ItemVersion) -> pb.ItemVersion:
    """The version as a report names it."""
    return pb.ItemVersion(revision=version.revision, digest=bytes.fromhex(version.digest))


def decode_versions(said: Iterable[pb.ItemVersion]) -> tuple[ItemVersion, ...] | None:
    """The versions that a report names; None if one of them is none that an item has."""
    versions: list[ItemVersion] = []
    for each in said:
        revision, digest = each.revision, each.digest
        if not _is_version(revision, digest):
            return None
        versions.append(ItemVersion(revision, digest.hex()))
    return tuple(versions)


def _is_version(revision: int, digest: bytes) -> bool:
    return is_digest(digest) and 0 < revision < _LARGEST


def _named_well(kind: str, name: str) -> bool:
    """A server keeps what it knows of a policy or a run in files: what those are called must not lead elsewhere."""
    family, slash, rest = kind.partition("/")
    if family + slash not in (POLICY, TASK):
        return 0 < len(kind) <= 64  # of a newer version
    try:
        names.kind(rest)
    except Refused:
        return False
    return family + slash == POLICY or names.is_id(name)


def _invalid(what: str) -> Refused:
    return Refused(Reason.SET_INVALID, f"A desired set {what}; it was not taken.")


def supersedes(new: DesiredSet, held: DesiredSet | None) -> bool:
    """Whether `new` replaces what is held of the same origin; False for the same set once more.

    Refused: SET_STALE for an older version; SET_CONFLICT - an alarm - for the held version with other content.
    """
    if held is None or new.version > held.version:
        return True
    if new.version < held.version:
        raise Refused(Reason.SET_STALE, f"A desired set of {new.version} came after that of {held.version}.")
    if new.content != held.content:
        raise Refused(Reason.SET_CONFLICT, f"Two desired sets of {new.version} say different things.")
    return False
