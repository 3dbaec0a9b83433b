"""The SQL of policies: their bodies, what they are and were, whom they are for, and what servers said of them."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from enlist import documents
from enlist.documents import ItemVersion
from enlist.layers import Layer, reread
from enlist.reasons import Reason, Refused
from enlist.runtime.schedules import Window
from enlist_primary.model.policies import Placed, Policy, Report, Status, ways, ways_down
from enlist_primary.model.reports import Word
from enlist_primary.store import groups, rollouts
from enlist_primary.store.database import Row, Transaction, Value, rows_of
from enlist_primary.store.groups import Group, path_of

_SELECT = f"""
    SELECT revision.*, {path_of("revision")} AS group_path FROM policy_revision revision WHERE revision.account = $1
"""
_STATUSES = {status.value: status for status in Status}
_PRESENT = f"{_SELECT} AND revision.revision IN (SELECT revision FROM policy WHERE account = $1)"


def unknown(group: str, kind: str) -> Refused:
    """The answer where a group has no policy of a kind."""
    return Refused(Reason.NOT_FOUND, f'The group "{group}" has no policy of the kind "{kind}".')


# --- Bodies -----------------------------------------------------------------------------------------------------------------


def save_body(tx: Transaction, account: str, body: bytes) -> str:
    """Keeps a body, once however often it is needed, and returns its digest in hex."""
    digest = hashlib.sha256(body).hexdigest()
    sql = "INSERT INTO body (account, digest, body) VALUES ($1, $2, $3) ON CONFLICT (account, digest) DO NOTHING"
    tx.run(sql, account, digest, body)
    return digest


def layer(tx: Transaction, account: str, digest: str) -> Layer:
    """The layer whose body has this digest."""
    row = tx.row("SELECT body FROM body WHERE account = $1 AND digest = $2", account, digest)
    assert row is not None, "a body stays as long as a revision names it"
    return reread(bytes(row["body"]))


def size(tx: Transaction, account: str, digest: str) -> int:
    """Bytes of the body that has this digest."""
    return int(tx.rows("SELECT length(body) AS size FROM body WHERE account = $1 AND digest = $2", account, digest)[0]["size"])


def layers(tx: Transaction, account: str, digests: Iterable[str]) -> dict[str, Layer]:
    """The layers of these digests, each read once."""
    return {digest: layer(tx, account, digest) for digest in sorted(set(digests))}


# --- What they are and were ---------------------------------------------------------------------------------------------------


def put(tx: Transaction, policy: Policy) -> None:
    """The policy as it is from this revision on; what it was stays in its history."""
    place = (policy.account, policy.group_id, policy.kind)
    if policy.digest is None:
        tx.run("DELETE FROM policy WHERE account = $1 AND group_id = $2 AND kind = $3", *place)
    else:
        sql = """
            INSERT INTO policy (account, group_id, kind, revision) VALUES ($1, $2, $3, $4)
            ON CONFLICT (account, group_id, kind) DO UPDATE SET revision = excluded.revision
        """
        tx.run(sql, *place, policy.revision)
    sql = """
        INSERT INTO policy_revision (account, group_id, kind, revision, digest, created_at, actor)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
    """
    tx.run(sql, *place, policy.revision, policy.digest, policy.created_at, policy.actor)


def find(tx: Transaction, account: str, group_id: str, kind: str) -> Policy | None:
    """The group's present policy of a kind; None if it has none."""
    row = tx.row(f"{_PRESENT} AND revision.group_id = $2 AND revision.kind = $3", account, group_id, kind)
    return None if row is None else _policy(row)


def revision(tx: Transaction, account: str, number: int) -> Policy | None:
    """What some policy was from this revision on."""
    row = tx.row(f"{_SELECT} AND revision.revision = $2", account, number)
    return None if row is None else _policy(row)


def history(tx: Transaction, account: str, group_id: str, kind: str, limit: int) -> list[Policy]:
    """What the group's policy of a kind is and was, newest first."""
    sql = f"{_SELECT} AND revision.group_id = $2 AND revision.kind = $3 ORDER BY revision.revision DESC LIMIT $4"
    return [_policy(row) for row in tx.rows(sql, account, group_id, kind, limit)]


def forget(tx: Transaction, policy: Policy, keep: int) -> None:
    """Drops what a policy was, but for its newest so many revisions and the one that its rollout has yet to replace everywhere."""
    place = (policy.account, policy.group_id, policy.kind)
    needed = rollouts.find(tx, policy.account, policy.revision)
    sql = "SELECT revision, digest FROM policy_revision WHERE account = $1 AND group_id = $2 AND kind = $3 ORDER BY revision DESC"
    for row in tx.rows(sql, *place)[keep:]:
        if needed is None or row["revision"] != needed.before:
            _forget(tx, policy.account, row)


def forget_group(tx: Transaction, account: str, group_id: str) -> None:
    """Drops what all policies of a group were, which ends now."""
    for row in tx.rows("SELECT revision, digest FROM policy_revision WHERE account = $1 AND group_id = $2", account, group_id):
        _forget(tx, account, row)


def _forget(tx: Transaction, account: str, row: Row) -> None:
    """Drops a revision with its rollout, and with its body if no other has that."""
    tx.run("DELETE FROM policy_revision WHERE account = $1 AND revision = $2", account, row["revision"])
    tx.run("DELETE FROM rollout WHERE account = $1 AND revision = $2", account, row["revision"])
    sql = """
        DELETE FROM body WHERE account = $1 AND digest = $2
        AND NOT EXISTS (SELECT 1 FROM policy_revision WHERE account = $1 AND digest = $2)
    """
    tx.run(sql, account, row["digest"])


def listed(tx: Transaction, account: str) -> list[Placed]:
    """The present policies of an account with their rollouts, by group and kind."""
    return _placed(tx, account, tx.rows(_PRESENT, account))


def of_kind(tx: Transaction, account: str, kind: str) -> list[Placed]:
    """Those of one kind."""
    return _placed(tx, account, tx.rows(f"{_PRESENT} AND revision.kind = $2", account, kind))


def sizes(tx: Transaction, account: str) -> dict[str, list[tuple[str, int]]]:
    """Kinds of the present policies and bytes of their bodies, by groups' ids; in a rollout, the larger of before and after."""
    sql = """
        SELECT policy.group_id, policy.kind, length(now.body) AS now, length(past.body) AS past FROM policy
            JOIN policy_revision revision USING (account, revision)
            JOIN body now ON now.account = policy.account AND now.digest = revision.digest
            LEFT JOIN rollout ON rollout.account = policy.account AND rollout.revision = policy.revision AND rollout.state <> 'done'
            LEFT JOIN policy_revision earlier ON earlier.account = policy.account AND earlier.revision = rollout.before
            LEFT JOIN body past ON past.account = policy.account AND past.digest = earlier.digest
        WHERE policy.account = $1
    """
    found: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for row in tx.rows(sql, account):
        found[row["group_id"]].append((row["kind"], max(row["now"], row["past"] or 0)))
    return found


def _placed(tx: Transaction, account: str, rows: Iterable[Row]) -> list[Placed]:
    brought = rollouts.of_policies(tx, account)
    found = [Placed(policy, *brought.get(policy.revision, ())) for policy in map(_policy, rows)]
    return sorted(found, key=lambda each: (each.policy.group.strip("/").split("/"), each.policy.kind))


def _policy(row: Row) -> Policy:
    return Policy(
        account=row["account"],
        group_id=row["group_id"],
        group=row["group_path"] or "",
        kind=row["kind"],
        revision=row["revision"],
        digest=row["digest"],
        created_at=row["created_at"],
        actor=row["actor"],
    )


# --- Whom they are for --------------------------------------------------------------------------------------------------------


class Target(NamedTuple):
    """A trusted server as policies know it."""

    id: str
    name: str
    group_id: str


@dataclass(frozen=True)
class Scene:
    """The policies of one kind in an account, and the trusted servers of some of its groups, in one view of the database.

    Groups are named by their ids; `windows` has the innermost maintenance window of each group that has one.
    """

    groups: dict[str, Group]
    ways: dict[str, tuple[Placed, ...]]
    windows: dict[str, Window]
    targets: list[Target]
    reports: dict[str, Report]


def scene(tx: Transaction, account: str, kind: str, group_id: str) -> Scene:
    """The scene for the servers that stand in a group or below it."""
    tree = {group.id: group for group in groups.listed(tx, account)}
    paths = {id: group.path for id, group in tree.items()}
    below = groups.below(tx, account, group_id)
    return Scene(
        groups=tree,
        ways=ways(paths, of_kind(tx, account, kind)),
        windows=dict(_windows(tree, paths)),
        targets=targets(tx, account, set(below)),
        reports=reports(tx, account, kind),
    )


def _windows(tree: Mapping[str, Group], paths: Mapping[str, str]) -> Iterator[tuple[str, Window]]:
    for id, way in ways_down(paths).items():
        open_in = [window for step in way if (window := tree[step].window) is not None]
        if open_in:
            yield id, open_in[-1]


_TARGETS = """
    SELECT id, name, group_id FROM server WHERE account = $1 AND state = 'trusted'
    UNION ALL
    SELECT below.via || '/' || below.path, middle.name || ' / ' || below.name, middle.group_id
    FROM below_server below JOIN server middle ON middle.account = below.account AND middle.id = below.via
    WHERE below.account = $1 AND below.state = 'trusted' AND middle.state IN ('trusted', 'suspended')
"""


def targets(tx: Transaction, account: str, group_ids: Collection[str] | None = None) -> list[Target]:
    """The trusted servers of an account, or those that stand in these groups; and all trusted ones below middle servers there.

    Those below one that is suspended are for their own primary to trust: they keep what they have, and cannot be reached.
    """
    return [_target(row) for row in tx.rows(_TARGETS, account) if group_ids is None or row["group_id"] in group_ids]


def _target(row: Row) -> Target:
    return Target(row["id"], row["name"] or "", row["group_id"])


# --- What servers said --------------------------------------------------------------------------------------------------------


_SAVE = f"""
    WITH said AS MATERIALIZED ({rows_of("server_id", "via", "path", "kind", "observed", "applied", "state", "message", "at")})
    INSERT INTO policy_report (account, server_id, kind, observed, applied, state, message, at)
    SELECT known.account, said.server_id, said.kind, said.observed, said.applied, said.state, said.message, CAST(said.at AS BIGINT)
    FROM said CROSS JOIN {{known}} WHERE known.account = $2 AND {{named}}
    ON CONFLICT (account, server_id, kind) DO UPDATE SET observed = excluded.observed, applied = excluded.applied,
        state = excluded.state, message = excluded.message, at = excluded.at
"""


def save_reports(tx: Transaction, account: str, words: Sequence[Word]) -> None:
    """Overwrites servers' last words on policies; of a server that is gone meanwhile nothing is kept.

    One below a middle server is named by that one's id and its path from there.
    """
    here = [word for word in words if "/" not in word.server_id]
    below = [word for word in words if "/" in word.server_id]
    _save_words(tx, account, here, "server known", "known.id = said.server_id")
    _save_words(tx, account, below, "below_server known", "known.via = said.via AND known.path = said.path")


def _save_words(tx: Transaction, account: str, words: Sequence[Word], known: str, named: str) -> None:
    if words:
        tx.run(_SAVE.format(known=known, named=named), json.dumps(list(map(_columns, words))), account)


def _columns(word: Word) -> tuple[Value, ...]:
    via, _, path = word.server_id.partition("/")
    kind = word.kind.removeprefix(documents.POLICY)
    versions = (_written(word.observed), _written(word.applied))
    return (word.server_id, via, path, kind, *versions, word.state, word.message, word.at)


def reports(tx: Transaction, account: str, kind: str) -> dict[str, Report]:
    """The last words of an account's servers on the policy of one kind, by server id."""
    sql = "SELECT server_id, observed, applied, state, message, at FROM policy_report WHERE account = $1 AND kind = $2"
    versions = cache(_versions)  # most servers have the same, and there may be very many
    return {row["server_id"]: _report(row, versions) for row in tx.rows(sql, account, kind)}


_TARGETS_WITH_REPORTS = f"""
    FROM ({_TARGETS}) target
    LEFT JOIN policy_report report ON report.account = $1 AND report.server_id = target.id AND report.kind = $2
"""
_ALIKE = f"""
    SELECT group_id, observed, applied, state, message, 0 AS at, count(*) AS number {_TARGETS_WITH_REPORTS}
    WHERE target.id IN (SELECT value FROM json_each($3))
    GROUP BY group_id, observed, applied, state, message
"""
_OTHERS = f"""
    SELECT target.*, observed, applied, state, message, at {_TARGETS_WITH_REPORTS}
    WHERE target.id NOT IN (SELECT value FROM json_each($3)) OR group_id IN (SELECT value FROM json_each($4))
"""


def alike(tx: Transaction, account: str, kind: str, ids: str) -> list[tuple[str, Report | None, int]]:
    """Of the targets with these ids (a JSON array) how many of a group said the same, with the group's id; when does not matter.

    The database counts them: of very many servers most say the same, and somebody may watch all the time.
    """
    versions = cache(_versions)
    return [(row["group_id"], _report_or_none(row, versions), row["number"]) for row in tx.rows(_ALIKE, account, kind, ids)]


def others(tx: Transaction, account: str, kind: str, ids: str, group_ids: str) -> list[tuple[Target, Report | None]]:
    """The targets with other ids than these, and all that stand in these groups (JSON arrays), each with its last word."""
    versions = cache(_versions)  # very many may be unreachable
    return [(_target(row), _report_or_none(row, versions)) for row in tx.rows(_OTHERS, account, kind, ids, group_ids)]


def _report_or_none(row: Row, versions: Callable[[str], tuple[ItemVersion, ...]]) -> Report | None:
    return None if row["state"] is None else _report(row, versions)


def _report(row: Row, versions: Callable[[str], tuple[ItemVersion, ...]]) -> Report:
    return Report(versions(row["observed"]), versions(row["applied"]), _STATUSES[row["state"]], row["message"], row["at"])


def _written(versions: Iterable[ItemVersion]) -> str:
    return ",".join(f"{each.revision}:{each.digest}" for each in versions)


def _versions(text: str) -> tuple[ItemVersion, ...]:
    pairs = (each.split(":") for each in text.split(",") if each)
    return tuple(ItemVersion(int(revision), digest) for revision, digest in pairs)
