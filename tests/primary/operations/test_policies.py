"""Policies are set, ended and set back; what is refused changes nothing, and who gets what is never a matter of opinion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from enlist import certificates, documents
from enlist.documents import Item, ItemVersion
from enlist.layers import Layer
from enlist.reasons import Reason, Refused
from enlist.v1 import document_pb2
from enlist_primary.authority.signer import Signer, new_authority
from enlist_primary.model import desired
from enlist_primary.model.accounts import PRIMARY
from enlist_primary.model.levels import Upper, UpperState
from enlist_primary.model.policies import Policy, Status
from enlist_primary.model.reports import Word
from enlist_primary.model.rollouts import ALL, NONE, RolloutState, Stages
from enlist_primary.operations import policies
from enlist_primary.store import desired as layouts
from enlist_primary.store import groups, levels
from enlist_primary.store import policies as rows
from enlist_primary.store import rollouts as rollout_rows
from tests.primary.operations.desk import ACME, ANN, BETA, DAY, START, Desk
from tests.primary.operations.fleet import KIND, STAGES, Fleet
from tests.support.sets import signed_by

NTP = {"ntp": {"servers": ["a", "b"], "port": 123}}


@pytest.fixture
def fleet(desk: Desk) -> Fleet:
    return Fleet(desk, "Sites/Paris", "Sites/Rome", "Labs")


def layer(fleet: Fleet, policy: Policy) -> Layer:
    assert policy.digest is not None
    return rows.layer(fleet.tx, policy.account, policy.digest)


def history(fleet: Fleet, path: str) -> list[Policy]:
    return rows.history(fleet.tx, ACME, groups.find(fleet.tx, ACME, path).id, KIND, 100)


# --- Set ----------------------------------------------------------------------------------------------------------------------


def test_a_policy_is_set_and_journalled_and_reaches_whoever_stands_below(fleet: Fleet) -> None:
    paris, rome, lab = fleet.server("paris", "Sites/Paris"), fleet.server("rome", "Sites/Rome"), fleet.server("lab", "Labs")
    with fleet.desk.touching_only(ACME):
        policy = fleet.set("Sites", NTP, "/ntp/port", put_back=True)
    assert layer(fleet, policy) == Layer(NTP, ("/ntp/port",), put_back=True)
    assert policy == Policy(ACME, policy.group_id, "Sites", KIND, fleet.desk.head(), policy.digest, fleet.desk.now, ANN.who)
    assert fleet.desk.desired() == policy.revision
    assert [fleet.meant(server) for server in (paris, rome, lab)] == [(policy.revision,), (policy.revision,), ()]
    assert fleet.meant(paris, "other") == ()


def test_few_small_bodies_are_read_with_the_layout_that_names_them_first(fleet: Fleet) -> None:
    fleet.set("Sites", NTP)
    before = layouts.layout(fleet.tx, ACME)
    small, large = fleet.set("Sites/Paris", {"small": 1}), fleet.set("Sites/Rome", {"text": "x" * layouts.SMALL})
    found, bodies = layouts.layout_with_bodies(fleet.tx, ACME, before)
    assert found.number == large.revision
    assert small.digest is not None
    assert bodies == {bytes.fromhex(small.digest): layouts.body(fleet.tx, ACME, bytes.fromhex(small.digest))}
    assert layouts.layout_with_bodies(fleet.tx, ACME, found)[1] == {}
    assert layouts.layout_with_bodies(fleet.tx, ACME, None)[1] == {}, "of what was there at the start, links ask for what they need"
    for number in range(layouts.FEW + 1):
        fleet.set("Labs", {"number": number}, kind=f"kind-{number}")
    assert layouts.layout_with_bodies(fleet.tx, ACME, found)[1] == {}


def test_the_journal_says_what_but_never_the_settings(fleet: Fleet) -> None:
    policy = fleet.set("Sites", {"password": "hunter2"}, stages=Stages(("1", "100%"), 2, 60))
    entry = fleet.desk.newest()
    assert (entry.action, entry.subject, entry.actor) == ("policy.set", f"policies/{KIND}@{policy.group_id}", ANN.who)
    assert entry.detail == {
        "group": "Sites",
        "kind": KIND,
        "digest": policy.digest,
        "stages": "1,100%",
        "stop after": 2,
        "confirm seconds": 60,
    }
    assert "hunter2" not in repr([each.body() for each in fleet.desk.journal()])


def test_layers_come_from_the_top_down(fleet: Fleet) -> None:
    paris, rome = fleet.server("paris", "Sites/Paris"), fleet.server("rome", "Sites/Rome")
    low, top, middle = fleet.set("Sites/Paris", {"a": 1}), fleet.set("/", {"b": 2}), fleet.set("Sites", {"c": 3})
    assert fleet.meant(paris) == (top.revision, middle.revision, low.revision)
    assert fleet.meant(rome) == (top.revision, middle.revision)


def test_what_holds_already_is_returned_and_not_journalled(fleet: Fleet) -> None:
    policy = fleet.set("Sites", NTP, "/ntp", "")
    fleet.desk.later(DAY)
    with fleet.desk.unchanged():
        assert fleet.set("Sites", {"ntp": {"port": 123, "servers": ["a", "b"]}}, "", "/ntp") == policy
        assert fleet.set("Sites", NTP, "", "/ntp", stages=STAGES) == policy


@pytest.mark.parametrize(
    ("settings", "locks", "put_back"), [({"ntp": {"servers": ["b", "a"]}}, (), False), (NTP, ("/ntp",), False), (NTP, (), True)]
)
def test_what_says_anything_else_is_a_new_revision(
    fleet: Fleet, settings: dict[str, Any], locks: tuple[str, ...], put_back: bool
) -> None:
    first = fleet.set("Sites", NTP)
    second = fleet.set("Sites", settings, *locks, put_back=put_back)
    assert second.revision > first.revision
    assert history(fleet, "Sites") == [second, first]


def test_kinds_and_groups_and_accounts_have_policies_of_their_own(fleet: Fleet) -> None:
    fleet.desk.add_group("Sites", BETA)
    first = fleet.set("Sites", NTP)
    with fleet.desk.touching_only(BETA):
        other = fleet.set("Sites", NTP, account=BETA)
    second, third = fleet.set("Sites", NTP, kind="nginx"), fleet.set("Sites/Paris", NTP)
    assert other.account == BETA
    assert [each.policy for each in rows.listed(fleet.tx, ACME)] == [first, second, third]
    assert fleet.tx.rows("SELECT account FROM body ORDER BY account") == [{"account": ACME}, {"account": BETA}]


def test_only_trusted_servers_are_counted(fleet: Fleet) -> None:
    fleet.server("paris", "Sites")
    fleet.desk.ask("pending")
    fleet.set("/", NTP)
    assert fleet.counts().desired == 1


# --- Refused ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "kind", "reason"),
    [
        ("Sites/Oslo", KIND, Reason.NOT_FOUND),
        ("a//b", KIND, Reason.INVALID_ARGUMENT),
        ("Sites", "", Reason.INVALID_ARGUMENT),
        ("Sites", "Chrony", Reason.INVALID_ARGUMENT),
        ("Sites", "../etc", Reason.INVALID_ARGUMENT),
    ],
)
def test_a_place_that_is_none_is_refused(fleet: Fleet, path: str, kind: str, reason: Reason) -> None:
    with fleet.desk.refuses(reason):
        fleet.set(path, NTP, kind=kind)


def test_a_group_of_another_account_is_not_there(fleet: Fleet) -> None:
    with fleet.desk.refuses(Reason.NOT_FOUND):
        fleet.set("Sites", NTP, account=BETA)


def test_the_primary_s_own_account_has_no_policies(fleet: Fleet) -> None:
    with fleet.desk.refuses(Reason.INVALID_ARGUMENT):
        fleet.set("/", NTP, account=PRIMARY)


@pytest.mark.parametrize(
    ("settings", "locks", "reason", "pointer"),
    [
        ({"ntp": {"port": 124}}, (), Reason.SETTING_LOCKED, "/ntp/port"),
        ({"ntp": None}, (), Reason.SETTING_LOCKED, "/ntp"),
        ({"x": 1}, ("/ntp/port",), Reason.SETTING_LOCKED, "/ntp/port"),
        ({"x": 1}, ("/y",), Reason.POLICY_INVALID, "/y"),
        ({"x": [{"y": 1}]}, ("/x/y",), Reason.POLICY_INVALID, "/x/y"),
    ],
)
def test_what_touches_an_upper_lock_and_locks_on_nothing_are_refused_with_the_pointer(
    fleet: Fleet, settings: dict[str, Any], locks: tuple[str, ...], reason: Reason, pointer: str
) -> None:
    fleet.set("/", NTP, "/ntp/port")
    with fleet.desk.refuses(reason) as no:
        fleet.set("Sites/Paris", settings, *locks)
    assert f'"{pointer}"' in no.value.message


def test_a_lock_may_come_later_than_what_it_locks(fleet: Fleet) -> None:
    """Policies rule 9: what stands below is kept and ignored, and revives."""
    low = fleet.set("Sites/Paris", {"ntp": {"port": 124}})
    fleet.set("/", NTP, "/ntp/port")
    assert [each.policy for each in rows.listed(fleet.tx, ACME)][-1] == low
    with fleet.desk.refuses(Reason.SETTING_LOCKED):
        fleet.set("Sites/Paris", {"ntp": {"port": 125}})


def test_locks_of_siblings_and_of_groups_below_bind_nobody_here(fleet: Fleet) -> None:
    fleet.set("Sites/Rome", NTP, "")
    fleet.set("Sites/Paris", NTP, "")
    fleet.set("Sites", {"ntp": {"port": 1}})


def test_a_body_over_the_limit_is_refused(fleet: Fleet) -> None:
    with fleet.desk.refuses(Reason.DOCUMENT_TOO_LARGE):
        fleet.set("Sites", {"x": "y" * documents.BODY_LIMIT})


# --- Ended --------------------------------------------------------------------------------------------------------------------


def test_an_ended_policy_reaches_nobody_and_its_history_stays(fleet: Fleet) -> None:
    paris = fleet.server("paris", "Sites/Paris")
    policy = fleet.set("Sites", NTP)
    fleet.remove("Sites")
    entry = fleet.desk.newest()
    assert (entry.action, entry.detail) == ("policy.remove", {"group": "Sites", "kind": KIND})
    assert fleet.desk.desired() == entry.number
    assert fleet.meant(paris) == ()
    assert [(each.revision, each.digest is None) for each in history(fleet, "Sites")] == [
        (entry.number, True),
        (policy.revision, False),
    ]


def test_what_ended_stays_so_and_what_never_was_is_not_found(fleet: Fleet) -> None:
    with fleet.desk.refuses(Reason.NOT_FOUND):
        fleet.remove("Sites")
    fleet.set("Sites", NTP)
    fleet.remove("Sites")
    with fleet.desk.unchanged():
        fleet.remove("Sites")


def test_what_ended_may_be_set_again(fleet: Fleet) -> None:
    paris = fleet.server("paris", "Sites/Paris")
    fleet.set("Sites", NTP)
    fleet.remove("Sites")
    again = fleet.set("Sites", NTP)
    assert fleet.meant(paris) == (again.revision,)


def test_a_removed_group_takes_its_policies_with_it(fleet: Fleet) -> None:
    fleet.set("Labs", NTP, stages=STAGES)
    fleet.desk.remove_group("Labs")
    assert rows.listed(fleet.tx, ACME) == []
    assert rollout_rows.running(fleet.tx) == {}
    fleet.desk.add_group("Labs")
    assert rows.find(fleet.tx, ACME, groups.find(fleet.tx, ACME, "Labs").id, KIND) is None


# --- Set back -----------------------------------------------------------------------------------------------------------------


def test_a_policy_is_set_back_as_a_new_revision(fleet: Fleet) -> None:
    paris = fleet.server("paris", "Sites/Paris")
    first, second = fleet.set("Sites", NTP, "/ntp", put_back=True), fleet.set("Sites", {"ntp": {}})
    back = fleet.roll_back("Sites")
    assert (back.digest, back.revision > second.revision) == (first.digest, True)
    assert layer(fleet, back) == Layer(NTP, ("/ntp",), put_back=True)
    assert fleet.meant(paris) == (back.revision,)
    entry = fleet.desk.newest()
    assert (entry.action, entry.detail["to revision"]) == ("policy.rollback", first.revision)


def test_without_a_number_it_is_what_was_before_it_became_what_it_is(fleet: Fleet) -> None:
    first, second = fleet.set("Sites", {"a": 1}), fleet.set("Sites", {"a": 2})
    assert fleet.roll_back("Sites").digest == first.digest
    assert fleet.roll_back("Sites").digest == second.digest
    fleet.remove("Sites")
    assert fleet.roll_back("Sites").digest == second.digest


def test_any_revision_may_be_named(fleet: Fleet) -> None:
    first, second, third = (fleet.set("Sites", {"a": number}) for number in range(3))
    assert fleet.roll_back("Sites", first.revision).digest == first.digest
    assert fleet.roll_back("Sites", second.revision).digest == second.digest
    with fleet.desk.unchanged():
        assert fleet.roll_back("Sites", second.revision).digest == second.digest
    assert fleet.roll_back("Sites", third.revision).digest == third.digest


def test_there_must_be_something_to_go_back_to(fleet: Fleet) -> None:
    other = fleet.set("Labs", {"a": 1})
    with fleet.desk.refuses(Reason.NOT_FOUND):
        fleet.roll_back("Sites")
    fleet.set("Sites", NTP)
    fleet.remove("Sites")
    ended = fleet.desk.head()
    fleet.set("Sites", NTP)
    for to in (0, 1, ended, other.revision, -1, 10**6):
        with fleet.desk.refuses(Reason.NOT_FOUND):
            fleet.roll_back("Sites", to)


def test_what_was_locked_above_since_is_not_brought_back(fleet: Fleet) -> None:
    fleet.set("Sites", {"ntp": {"port": 1}})
    fleet.set("Sites", {"x": 1})
    fleet.set("/", NTP, "/ntp")
    with fleet.desk.refuses(Reason.SETTING_LOCKED):
        fleet.roll_back("Sites")


def test_setting_back_may_go_in_stages_too(fleet: Fleet) -> None:
    servers = [fleet.server(name, "Sites") for name in ("one", "two", "three")]
    fleet.set("Sites", {"a": 1})
    fleet.set("Sites", {"a": 2})
    back = fleet.roll_back("Sites", stages=STAGES)
    assert len(fleet.has(back, *servers)) == 1


def test_what_it_was_long_ago_is_forgotten_with_its_body(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "HISTORY", 3)
    other = fleet.set("Labs", {"a": 1})
    made = [fleet.set("Sites", {"a": number}, stages=STAGES) for number in range(5)]
    assert history(fleet, "Sites") == made[:1:-1]
    bodies = {row["digest"] for row in fleet.tx.rows("SELECT digest FROM body")}
    assert bodies == {other.digest, *(policy.digest for policy in made[2:])}
    assert [row["revision"] for row in fleet.tx.rows("SELECT revision FROM rollout ORDER BY revision")] == [
        policy.revision for policy in made[2:]
    ]


def test_what_servers_still_have_is_not_forgotten(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policies, "HISTORY", 2)
    servers = [fleet.server(name, "Sites") for name in ("one", "two")]
    first = fleet.set("Sites", {"a": "first"})
    for number in range(5):
        fleet.set("Sites", {"a": number}, stages=STAGES)
    assert len(fleet.has(first, *servers)) == 1
    assert layer(fleet, first).settings == {"a": "first"}
    fleet.set("Sites", {"a": "last"})
    assert first not in history(fleet, "Sites")


# --- Stages -------------------------------------------------------------------------------------------------------------------


def test_without_stages_there_is_no_rollout(fleet: Fleet) -> None:
    policy = fleet.set("Sites", NTP)
    assert rollout_rows.find(fleet.tx, ACME, policy.revision) is None


def test_a_rollout_begins_with_its_first_stage_and_the_others_keep_what_they_have(fleet: Fleet) -> None:
    servers = [fleet.server(name, "Sites") for name in ("one", "two", "three", "four")]
    fleet.server("elsewhere", "Labs")
    first = fleet.set("Sites", {"a": 1})
    second = fleet.set("Sites", {"a": 2}, stages=STAGES)
    rollout = fleet.rollout(second)
    assert (rollout.before, rollout.stage, rollout.state, rollout.confirmed) == (first.revision, 1, RolloutState.RUNNING, NONE)
    assert len(fleet.has(second, *servers)) == 1
    assert len(fleet.has(first, *servers)) == 3


def test_where_there_was_nothing_before_the_others_have_nothing(fleet: Fleet) -> None:
    servers = [fleet.server(name, "Sites") for name in ("one", "two")]
    policy = fleet.set("Sites", NTP, stages=STAGES)
    assert sorted(fleet.meant(server) for server in servers) == [(), (policy.revision,)]


def test_only_a_reachable_server_can_be_the_first(fleet: Fleet) -> None:
    servers = [fleet.server(f"s{number}", "Sites") for number in range(6)]
    for server in servers[1:]:
        fleet.down(server)
    policy = fleet.set("Sites", NTP, stages=STAGES)
    assert "s0" in fleet.has(policy, *servers)


def test_a_new_set_replaces_a_rollout_and_everybody_else_has_what_everybody_had_for_good(fleet: Fleet) -> None:
    servers = [fleet.server(f"s{number}", "Sites") for number in range(4)]
    first = fleet.set("Sites", {"a": 1})
    second = fleet.set("Sites", {"a": 2}, stages=STAGES)
    third = fleet.set("Sites", {"a": 3}, stages=STAGES)
    assert fleet.rollout(third).before == first.revision
    assert (fleet.rollout(second).state, fleet.rollout(second).message) == (
        RolloutState.STOPPED,
        f"replaced by revision {third.revision}",
    )
    assert rollout_rows.running(fleet.tx) == {ACME: [third.revision]}
    assert [each.revision for each in rollout_rows.unfinished(fleet.tx, ACME)] == [third.revision]
    assert fleet.has(second, *servers) == []
    assert len(fleet.has(first, *servers)) == 3


@pytest.mark.parametrize(("state", "before_is"), [(RolloutState.DONE, "second"), (RolloutState.STOPPED, "first")])
def test_what_a_new_rollout_begins_with(fleet: Fleet, state: RolloutState, before_is: str) -> None:
    first = fleet.set("Sites", {"a": 1})
    second = fleet.set("Sites", {"a": 2}, stages=STAGES)
    rollout_rows.update(fleet.tx, replace(fleet.rollout(second), state=state, confirmed=ALL, started=ALL))
    third = fleet.set("Sites", {"a": 3}, stages=STAGES)
    assert fleet.rollout(third).before == {"first": first, "second": second}[before_is].revision


def test_the_same_again_while_its_stages_are_not_done_is_a_decision(fleet: Fleet) -> None:
    """Whoever has seen enough says: all of them, now."""
    servers = [fleet.server(f"s{number}", "Sites") for number in range(4)]
    fleet.set("Sites", NTP, stages=STAGES)
    again = fleet.set("Sites", NTP)
    assert len(fleet.has(again, *servers)) == 4


def test_removing_ends_the_rollout_too(fleet: Fleet) -> None:
    servers = [fleet.server(f"s{number}", "Sites") for number in range(4)]
    fleet.set("Sites", {"a": 1})
    policy = fleet.set("Sites", {"a": 2}, stages=STAGES)
    fleet.remove("Sites")
    assert fleet.rollout(policy).state is RolloutState.STOPPED
    assert [fleet.meant(server) for server in servers] == [()] * 4


# --- How it fares -------------------------------------------------------------------------------------------------------------


def test_counts_are_complete(fleet: Fleet) -> None:
    servers = {state: fleet.server(state, "Sites") for state in (*Status, "silent", "never")}
    fleet.set("Sites", NTP)
    fleet.desk.later(60)
    for state in set(Status) - {Status.PENDING, Status.UNREACHABLE}:
        fleet.say(servers[state], state)
    fleet.say(servers["unreachable"])
    for name in ("unreachable", "never"):
        fleet.down(servers[name])
        fleet.desk.later(5)
    fleet.links[servers["never"].id] = fleet.links[servers["never"].id]._replace(since=None)
    counts = fleet.counts("Sites")
    expected = dict.fromkeys(Status, 1) | {Status.PENDING: 2, Status.UNREACHABLE: 2}
    assert (counts.by_status, counts.desired) == (expected, 10)
    assert counts.unreachable_since == fleet.desk.now - 10


def test_a_word_counts_only_if_it_means_exactly_what_the_server_shall_have(fleet: Fleet) -> None:
    paris = fleet.server("paris", "Sites/Paris")
    fleet.set("Sites", NTP)
    fleet.say(paris)
    assert fleet.counts("Sites").by_status == {Status.APPLIED: 1}
    upper = fleet.set("/", {"x": 1})
    assert fleet.counts("Sites").by_status == fleet.counts("/").by_status == {Status.PENDING: 1}
    fleet.say(paris, "failed", "no such file")
    assert fleet.counts("Sites").by_status == fleet.counts("/").by_status == {Status.FAILED: 1}
    fares = fleet.fares("/")["paris"]
    assert (fares.status, fares.message, fares.since) == (Status.FAILED, "no such file", fleet.desk.now)
    assert fares.revision == upper.revision


def test_a_moved_server_is_pending_until_it_has_spoken_of_its_new_place(fleet: Fleet) -> None:
    paris = fleet.server("paris", "Sites/Paris")
    fleet.set("Sites", NTP)
    fleet.set("Labs", {"lab": 1})
    fleet.say(paris)
    fleet.desk.move(paris, "Labs")
    assert fleet.counts("Sites").desired == 0
    assert fleet.counts("Labs").by_status == {Status.PENDING: 1}


def test_who_is_not_in_the_stage_is_pending_and_told_why(fleet: Fleet) -> None:
    servers = [fleet.server(name, "Sites") for name in ("one", "two")]
    fleet.set("Sites", {"a": 1})
    policy = fleet.set("Sites", {"a": 2}, stages=STAGES)
    for server in servers:
        fleet.say(server)
    counts, fares = fleet.counts("Sites"), fleet.fares("Sites")
    assert counts.by_status == {Status.APPLIED: 1, Status.PENDING: 1}
    [waiting] = {"one", "two"} - set(fleet.has(policy, *servers))
    assert (fares[waiting].status, fares[waiting].message) == (Status.PENDING, "its stage has not begun")


def test_a_word_on_the_same_revision_with_another_body_is_not_applied(fleet: Fleet) -> None:
    """As after a restore: the primary gave the number again, to another body."""
    server = fleet.server("paris", "Sites")
    policy = fleet.set("Sites", NTP)
    other = (ItemVersion(policy.revision, "d" * 64),)
    [desired] = fleet.desired(server)
    for observed, applied in ((other, other), (other, (desired,)), ((desired,), other)):
        fleet.say(server, observed=observed, applied=applied)
        assert fleet.counts("Sites").by_status == {Status.PENDING: 1}
    fleet.say(server)
    assert fleet.counts("Sites").by_status == {Status.APPLIED: 1}


def test_what_was_said_is_read_as_it_was_written(fleet: Fleet) -> None:
    server = fleet.server("paris", "Sites")
    observed, applied = (ItemVersion(7, "a" * 64), ItemVersion(2**62 - 1, "b" * 64)), (ItemVersion(7, "c" * 64),)
    fleet.say(server, "failed", observed=observed, applied=applied)
    fleet.say(fleet.server("rome", "Sites"), "received", observed=(), applied=())
    found = rows.reports(fleet.tx, ACME, KIND).values()
    assert {(each.observed, each.applied) for each in found} == {(observed, applied), ((), ())}


def test_nobody_s_word_is_kept_that_is_not_there(fleet: Fleet) -> None:
    stranger = Word("nobodyhere", f"policy/{KIND}", "", "applied", fleet.desk.now, observed=(ItemVersion(1, "d" * 64),))
    with fleet.desk.unchanged():
        fleet.desk.do(rows.save_reports, ACME, [stranger])


def test_the_place_names_its_subject(fleet: Fleet) -> None:
    assert policies.about_policy("chrony", "abc") == "policies/chrony@abc"


def test_with_a_group_ends_what_its_policies_were(fleet: Fleet) -> None:
    """Or each group that was ever made and removed would leave a hundred revisions and their bodies for good."""
    kept = fleet.set("Sites", NTP)
    fleet.set("Labs", NTP)
    fleet.set("Labs", {"other": 1})
    fleet.set("Labs", {"of": "another kind"}, kind="web")
    fleet.remove("Labs", kind="web")
    fleet.desk.remove_group("Labs")
    rows_left = fleet.desk.rows()
    assert [row["revision"] for row in rows_left["policy_revision"]] == [kept.revision]
    assert [row["digest"] for row in rows_left["body"]] == [kept.digest]


# --- What servers take ----------------------------------------------------------------------------------------------------------


def test_more_than_a_server_takes_is_refused_where_it_is_set(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the server it would be refused with all that it has besides."""
    monkeypatch.setattr(desired, "POLICIES", 2)
    fleet.set("/", NTP)
    fleet.set("Sites/Paris", NTP)
    with fleet.desk.refuses(Reason.DOCUMENT_TOO_LARGE) as refused:
        fleet.set("Sites", NTP)
    assert "Sites/Paris" in refused.value.message
    fleet.set("Labs", NTP)
    fleet.remove("Sites/Paris")
    fleet.set("Sites", NTP)


def test_a_group_is_not_moved_to_where_its_servers_would_get_too_much(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desired, "POLICIES_BYTES", 1000)
    fleet.set("Sites/Paris", {"text": "x" * 600})
    fleet.set("Labs", {"text": "x" * 600})
    with fleet.desk.refuses(Reason.DOCUMENT_TOO_LARGE):
        fleet.desk.move_group("Sites/Paris", "Labs/Paris")
    fleet.desk.move_group("Sites/Paris", "Paris")


def test_what_servers_have_until_their_stage_begins_takes_room_as_well(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desired, "POLICIES_BYTES", 1000)
    fleet.server("paris", "Sites/Paris")
    fleet.set("Sites/Paris", {"text": "x" * 600})
    small = fleet.set("Sites/Paris", {}, stages=STAGES)
    with fleet.desk.refuses(Reason.DOCUMENT_TOO_LARGE):
        fleet.set("/", {"text": "x" * 600})
    fleet.set("Sites/Paris", {})
    assert fleet.set("/", {"text": "x" * 600}).revision > small.revision


# --- From above -------------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_read_from_above_is_no_reason_to_refuse_what_is_set_here(fleet: Fleet) -> None:
    """A newer primary may stand above. What its servers would make of it cannot be told here, and that is said."""
    key = certificates.new_key()
    signer = Signer(key, new_authority(key, START))
    body = b'{"of":"a later version"}'
    item = Item(f"policy/{KIND}", "Sites", 3, documents.digest(body))
    encoded = documents.encode("top.example", "a" * 10, documents.SetVersion(1, 3), documents.encode_items([item]))
    signed = signed_by(signer, encoded)
    authority = certificates.der(signer.authority.certificate)
    above = document_pb2.Ancestry(ancestors=[document_pb2.Ancestor(primary_name="\x1b[2JTop", authority_certificate=authority)])
    upper = Upper(authority, "Top", UpperState.PRESENT, b"", b"", above.SerializeToString())
    levels.save_upper(fleet.tx, upper)
    levels.save_upper_set(fleet.tx, signer.authority.fingerprint, signed.SerializeToString(), [(item.digest.hex(), body)])
    fleet.set("Sites", NTP)
    (layer,) = levels.upper_layers(fleet.tx, KIND)
    assert layer.said is None
    with pytest.raises(Refused) as refused:
        _ = layer.layer
    assert refused.value.reason is Reason.POLICY_INVALID
    assert "Top: top.example/Sites" in refused.value.message
    assert "\x1b" not in refused.value.message
