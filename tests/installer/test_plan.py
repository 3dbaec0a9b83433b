"""What a run changes, as a table: what stands, what is wanted, what comes of it."""

from __future__ import annotations

import msgspec
import pytest

from enlist.reasons import Reason, Refused
from enlist_installer.plan import Change, Plan, Standing, Wanted, plan
from enlist_secondary.config import LocalPrimary, SecondaryConfig

HOME, OTHER = "a" * 64, "b" * 64
NEW = "fresh"
CONFIG = SecondaryConfig(primary="primary.example", account="acme.example", name="gw1", data="/var/lib/enlist/secondary")


def config(**changes: str) -> SecondaryConfig:
    return msgspec.structs.replace(CONFIG, **changes)


def stands(state: str = "trusted", primary_id: str | None = HOME, **changes: str) -> Standing:
    return Standing(config(**changes), primary_id, state)


def planned(wanted: Wanted, current: Standing | None, staged: Standing | None = None) -> Plan:
    return plan(wanted, current, staged, NEW)


STAGED = stands("pending", OTHER, primary="other.example", enrolment="second")

TABLE = [
    # what it is, current, staged, wanted, change, enrolment, staged?, drops the staged one?
    ("an empty machine", None, None, Wanted(CONFIG, HOME), Change.NEW, NEW, False, False),
    ("all as wanted", stands(), None, Wanted(CONFIG, HOME), Change.NOTHING, "main", False, False),
    ("another name", stands(), None, Wanted(config(name="gw2"), HOME), Change.SETTINGS, "main", False, False),
    (
        "another client address",
        stands(),
        None,
        Wanted(config(server_address="gw1.acme.example"), HOME),
        Change.SETTINGS,
        "main",
        False,
        False,
    ),
    ("the primary moved", stands(), None, Wanted(config(primary="192.0.2.1"), HOME), Change.ADDRESS, "main", False, False),
    ("another primary", stands(), None, Wanted(config(primary="other.example"), OTHER), Change.PRIMARY, NEW, True, False),
    ("another primary at the same address", stands(), None, Wanted(CONFIG, OTHER), Change.PRIMARY, NEW, True, False),
    ("another account there", stands(), None, Wanted(config(account="b.example"), HOME), Change.PRIMARY, NEW, True, False),
    ("leaving while pending", stands("pending"), None, Wanted(CONFIG, OTHER), Change.PRIMARY, NEW, True, False),
    ("leaving while suspended", stands("suspended"), None, Wanted(CONFIG, OTHER), Change.PRIMARY, NEW, True, False),
    ("leaving what never began", stands("new"), None, Wanted(CONFIG, OTHER), Change.NEW, NEW, False, False),
    ("leaving after a no", stands("denied"), None, Wanted(CONFIG, OTHER), Change.NEW, NEW, False, False),
    ("leaving after the end", stands("revoked"), None, Wanted(CONFIG, OTHER), Change.NEW, NEW, False, False),
    ("denied, same again", stands("denied"), None, Wanted(CONFIG, HOME, ask_again=True), Change.NOTHING, "main", False, False),
    ("revoked, looked at", stands("revoked"), None, Wanted(CONFIG, HOME), Change.NOTHING, "main", False, False),
    ("revoked, asked again", stands("revoked"), None, Wanted(CONFIG, HOME, ask_again=True), Change.NEW, NEW, False, False),
    ("no key yet, same address", stands("new", None), None, Wanted(CONFIG, HOME), Change.NOTHING, "main", False, False),
    (
        "no key yet, other address",
        stands("new", None),
        None,
        Wanted(config(primary="x.example"), HOME),
        Change.NEW,
        NEW,
        False,
        False,
    ),
    ("the move again", stands(), STAGED, Wanted(config(primary="other.example"), OTHER), Change.NOTHING, "second", True, False),
    (
        "the move, changed",
        stands(),
        STAGED,
        Wanted(config(primary="other.example", name="x"), OTHER),
        Change.SETTINGS,
        "second",
        True,
        False,
    ),
    ("settings during a move", stands(), STAGED, Wanted(config(name="gw2"), HOME), Change.SETTINGS, "main", False, False),
    ("staying after all", stands(), STAGED, Wanted(CONFIG, HOME, stay=True), Change.NOTHING, "main", False, True),
    ("a third primary", stands(), STAGED, Wanted(CONFIG, "c" * 64), Change.PRIMARY, NEW, True, True),
]


@pytest.mark.parametrize(
    ("current", "staged", "wanted", "change", "enrolment", "beside", "drops"),
    [row[1:] for row in TABLE],
    ids=[row[0] for row in TABLE],
)
def test_what_is_wanted_over_what_stands(
    current: Standing | None, staged: Standing | None, wanted: Wanted, change: Change, enrolment: str, beside: bool, drops: bool
) -> None:
    result = planned(wanted, current, staged)
    assert (result.change, result.config.enrolment, result.staged, result.drops_staged) == (change, enrolment, beside, drops)
    assert msgspec.structs.replace(result.config, enrolment="main") == wanted.config


@pytest.mark.parametrize(
    ("current", "staged", "wanted"), [row[1:4] for row in TABLE if row[1] is not None], ids=[row[0] for row in TABLE if row[1]]
)
def test_what_the_owner_wrote_survives_whatever_changes(current: Standing, staged: Standing | None, wanted: Wanted) -> None:
    """No question is about handlers and the primary on this machine, so no answer takes them away."""
    handlers = {"task": {"restart": {"type": "exec", "command": ["/bin/restart"]}}}
    owners = {"handlers": handlers, "local_primary": LocalPrimary("/run/upstream.sock")}
    edited = Standing(msgspec.structs.replace(current.config, **owners), current.primary_id, current.state)
    before = planned(wanted, current, staged)
    if before.change is Change.PRIMARY and current.state != "pending":
        # What the present primary set for the servers below would end without anybody having been asked.
        with pytest.raises(Refused) as refused:
            planned(wanted, edited, staged)
        assert refused.value.reason is Reason.BEQUEST_REQUIRED
        return
    after = planned(wanted, edited, staged)
    assert after.config == msgspec.structs.replace(before.config, **owners)
    assert after.change is (Change.SETTINGS if before.staged and before.change is Change.NOTHING else before.change)


@pytest.mark.parametrize("change", Change)
def test_only_a_new_enrolment_makes_a_key_and_only_nothing_writes_nothing(change: Change) -> None:
    result = Plan(change, CONFIG)
    assert result.new_enrolment is (change in (Change.NEW, Change.PRIMARY))
    assert result.changes is (change is not Change.NOTHING)


def test_giving_a_move_up_is_a_change() -> None:
    assert Plan(Change.NOTHING, CONFIG, drops_staged=True).changes
