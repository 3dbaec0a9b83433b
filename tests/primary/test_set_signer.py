"""Sets that wait to be sent together share a signature, and each is good by itself."""

from __future__ import annotations

import secrets
from functools import partial

import pytest

from enlist import certificates, documents
from enlist.documents import Item, Origin, SetVersion
from enlist.reasons import Reason, Refused
from enlist_primary.authority.set_signer import TOGETHER, TOGETHER_BYTES, SetSigner
from tests.support.sets import altered

KEY = certificates.new_key()
ACCOUNT = "acme.example"
ITEM = Item("policy/motd", "Sites/Paris", 5, documents.digest(b"body"), 60)


class Counting:
    """Signs, and counts."""

    def __init__(self) -> None:
        self.signatures = 0
        self.sets = SetSigner(self._sign, origin("none").primary_id, secrets.token_bytes)

    def _sign(self, root: bytes) -> bytes:
        self.signatures += 1
        return documents.sign(KEY, root)


def origin(target: str) -> Origin:
    """The primary, as this server knows it."""
    return Origin(certificates.spki(KEY.public_key()), ACCOUNT, target)


def encoded(target: str) -> bytes:
    """What is wanted at a server."""
    return documents.encode(ACCOUNT, target, SetVersion(1, 7), documents.encode_items([ITEM]))


def ids(count: int) -> list[str]:
    return [f"server{number:04d}" for number in range(count)]


def test_all_that_wait_when_the_first_is_sent_have_one_signature_and_each_is_good() -> None:
    made = Counting()
    signs = {id: made.sets.add(ACCOUNT, partial(encoded, id), 100) for id in ids(TOGETHER)}
    assert made.signatures == 0
    for id, sign in signs.items():
        found = documents.verify(sign(), origin(id))
        assert (found.target, found.items) == (id, (ITEM,))
    assert made.signatures == 1


def test_set_of_one_server_is_good_at_no_other() -> None:
    """Attacks row 38: neither as it is, nor with the content of another one under the same signature."""
    made = Counting()
    mine, others = (made.sets.add(ACCOUNT, partial(encoded, id), 100) for id in ids(2))
    for signed in (
        others(),
        altered(mine(), desired_set=others().desired_set),
        altered(mine(), index=1),
        altered(mine(), salt=others().salt),
    ):
        with pytest.raises(Refused) as caught:
            documents.verify(signed, origin(ids(1)[0]))
        assert caught.value.reason is Reason.SET_INVALID


def test_no_set_is_signed_together_with_one_of_another_account() -> None:
    """Attacks row 15: a server would learn of others that they get something."""
    made = Counting()
    accounts = [ACCOUNT, ACCOUNT, "rival.example", ACCOUNT]
    signs = [made.sets.add(account, partial(encoded, id), 100) for account, id in zip(accounts, ids(4), strict=True)]
    assert [sign().size for sign in signs] == [2, 2, 1, 1]


def test_path_confirms_no_guess_of_another_server_s_set() -> None:
    """Attacks row 15: it is the hash of that set and of random bytes that only that server gets."""
    made = Counting()
    mine, others = (made.sets.add(ACCOUNT, partial(encoded, id), 100) for id in ids(2))
    (hashed,) = mine().path
    assert hashed == documents.leaf(others().salt, encoded(ids(2)[1]))
    assert others().salt != mine().salt
    assert len(others().salt) == documents.SALT_BYTES


def test_what_comes_once_the_first_was_sent_is_signed_by_itself() -> None:
    made = Counting()
    made.sets.add(ACCOUNT, partial(encoded, "first"), 100)()
    late = made.sets.add(ACCOUNT, partial(encoded, "late"), 100)
    assert documents.verify(late(), origin("late")).target == "late"
    assert made.signatures == 2


@pytest.mark.parametrize(("size", "together"), [(0, TOGETHER), (TOGETHER_BYTES // 2, 2), (TOGETHER_BYTES + 1, 1)])
def test_only_so_many_are_hashed_in_one_go(size: int, together: int) -> None:
    made = Counting()
    signs = [made.sets.add(ACCOUNT, partial(encoded, id), size) for id in ids(2 * together + 1)]
    assert [sign().size for sign in signs] == [together] * 2 * together + [1]
    assert made.signatures == 3
