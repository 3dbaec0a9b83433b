"""Policies as `--json` and people see them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from enlist_primary.cli import output
from enlist_primary.cli.groups import shown, span

if TYPE_CHECKING:
    from enlist.v1.policy_pb2 import (
        ExplainPolicyResponse,
        PlanPolicyResponse,
        Policy,
        PolicyCounts,
        PolicyReport,
        Rollout,
        ServerLabel,
    )

STATES = ("pending", "received", "applied", "failed", "rolled_back", "changed_locally", "unreachable", "unsupported")
EXPLAINED = ("POINTER", "VALUE", "LAYER", "REVISION", "")
NAMED = 8
"""Servers that a plan names for people before it says how many more there are."""
PARTIAL = (
    "Of servers below a middle server this is what they get from here and from above: what their own primaries set besides, "
    "plan there shows."
)


# --- How it fares -------------------------------------------------------------------------------------------------------------


def fares(policy: Policy, stage: bool = False) -> str:
    """How a policy fares, in words: `applied 41 of 43, 2 unreachable since 2026-11-21T14:02:00Z`. All servers are in it."""
    counts = policy.counts
    words = [f"applied {counts.applied} of {counts.desired}"]
    for state in ("failed", "rolled_back", "unsupported", "changed_locally", "received", "pending", "unreachable"):
        count = getattr(counts, state)
        if count:
            words.append(f"{count} {state.replace('_', ' ')}{_since(counts) if state == 'unreachable' else ''}")
    if stage and policy.HasField("rollout"):
        words.append(rollout_words(policy))
    return ", ".join(words)


def _since(counts: PolicyCounts) -> str:
    since = output.time_of(counts, "unreachable_since")
    return f" since {since}" if since else ""


def rollout_words(policy: Policy) -> str:
    """Where a policy's rollout stands, in words; a hyphen where there is none."""
    if not policy.HasField("rollout"):
        return "-"
    rollout = policy.rollout
    where = f"stage {rollout.stage} of {len(rollout.stages.sizes)} ({rollout.stages.sizes[rollout.stage - 1]})"
    state = rollout_state(rollout)
    return {"running": where, "done": "all stages done"}.get(state, f"{state} in {where}: {rollout.message}")


def rollout_state(rollout: Rollout) -> str:
    """`running`, `stopped` or `done`."""
    from enlist.v1 import policy_pb2

    return output.name_of_enum(policy_pb2.RolloutState.Name(rollout.state), "ROLLOUT_STATE_")


def stopped(policy: Policy) -> bool:
    """Whether its rollout goes no further."""
    return policy.HasField("rollout") and rollout_state(policy.rollout) == "stopped"


def state_of(report: PolicyReport) -> str:
    """How it fares at one server, as people write it."""
    from enlist.v1 import document_pb2

    return output.name_of_enum(document_pb2.DocumentState.Name(report.state), "DOCUMENT_STATE_")


def name_of(server: ServerLabel) -> str:
    """A server's name."""
    return server.display_name or f"({server.id})"


# --- A policy -----------------------------------------------------------------------------------------------------------------


def as_json(policy: Policy) -> dict[str, object]:
    """A policy as `--json` shows it in a list."""
    return {
        "account": policy.account,
        "group": policy.group,
        "kind": policy.kind,
        "revision": policy.revision,
        "locks": list(policy.layer.locks),
        "put_back": policy.layer.put_back,
        "created": output.time_of(policy, "create_time"),
        "by": policy.actor,
        "desired": policy.counts.desired,
        **{state: getattr(policy.counts, state) for state in STATES},
        "unreachable_since": output.time_of(policy.counts, "unreachable_since"),
        "rollout": _rollout_as_json(policy),
    }


def _rollout_as_json(policy: Policy) -> dict[str, object] | None:
    if not policy.HasField("rollout"):
        return None
    rollout = policy.rollout
    return {
        "state": rollout_state(rollout),
        "stage": rollout.stage,
        "sizes": list(rollout.stages.sizes),
        "stop_after": rollout.stages.stop_after,
        "confirm_seconds": rollout.stages.confirm_seconds,
        "stage_since": output.time_of(rollout, "stage_time"),
        "message": rollout.message or None,
    }


def whole_as_json(policy: Policy, reports: Sequence[PolicyReport]) -> dict[str, object]:
    """A policy with its settings, and how it fares at each server."""
    return {**as_json(policy), "settings": json.loads(policy.layer.settings), "servers": [_report_as_json(r) for r in reports]}


def _report_as_json(report: PolicyReport) -> dict[str, object]:
    return {
        "id": report.server.id,
        "name": report.server.display_name or None,
        "group": report.group,
        "state": state_of(report),
        "revision": report.revision or None,
        "running_revision": report.running_revision or None,
        "since": output.time_of(report, "time"),
        "message": report.message or None,
    }


def report_row(report: PolicyReport) -> tuple[str, ...]:
    """The same as a row of a table."""
    running = f" (running {report.running_revision})" if report.running_revision not in (0, report.revision) else ""
    revision = f"{report.revision or '-'}{running}"
    since = output.time_of(report, "time") or "-"
    return name_of(report.server), report.group, state_of(report).replace("_", " "), revision, since, report.message or "-"


def as_text(policy: Policy) -> str:
    """A policy with its settings, for people."""
    lines = {
        "policy": f"{policy.kind} of {shown(policy.account, policy.group)}",
        "revision": f"{policy.revision}, by {policy.actor} at {output.time_of(policy, 'create_time')}",
        "locks": _locks(policy),
        "put back": output.shown(policy.layer.put_back),
        "state": fares(policy),
        "rollout": _stages_words(policy),
    }
    settings = json.dumps(json.loads(policy.layer.settings), indent=2, ensure_ascii=False)
    return "\n".join([*(f"{key:<8}  {value}" for key, value in lines.items()), settings])


def _locks(policy: Policy) -> str:
    return " ".join(lock or '""' for lock in policy.layer.locks) or "-"


def _stages_words(policy: Policy) -> str:
    if not policy.HasField("rollout"):
        return "all servers at once"
    stages = policy.rollout.stages
    confirm = f", each to be confirmed within {span(stages.confirm_seconds)}" if stages.confirm_seconds else ""
    return f"{rollout_words(policy)}; {','.join(stages.sizes)}, stops after {stages.stop_after} failed{confirm}"


# --- What it was --------------------------------------------------------------------------------------------------------------


def revision_as_json(policy: Policy) -> dict[str, object]:
    """What a policy was; its settings are null where it ended, and where they are too large for a list."""
    return {
        "revision": policy.revision,
        "created": output.time_of(policy, "create_time"),
        "by": policy.actor,
        "removed": policy.removed,
        "settings": json.loads(policy.layer.settings) if policy.layer.settings else None,
        "locks": list(policy.layer.locks),
        "put_back": policy.layer.put_back,
        "rollout": _rollout_as_json(policy),
    }


def revision_row(policy: Policy) -> tuple[str, ...]:
    """The same as a row of a table."""
    said = _short(policy.layer.settings.decode()) if policy.layer.settings else "(large)"
    settings = "(removed)" if policy.removed else said
    when = output.time_of(policy, "create_time") or "-"
    put_back = "-" if policy.removed else output.shown(policy.layer.put_back)
    return str(policy.revision), when, policy.actor, settings, _locks(policy), put_back, rollout_words(policy)


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


# --- What a server gets -------------------------------------------------------------------------------------------------------


def explanation_as_json(response: ExplainPolicyResponse) -> dict[str, object]:
    """What a server gets, and from where; the settings that locks above make it ignore stand apart."""
    explained, said = _explained(response), response.layers
    return {
        "effective": explained.effective,
        "origin": {
            pointer: {"layer": said[origin.layer].layer, "revision": said[origin.layer].revision, "locked": origin.locked}
            for pointer, origin in explained.origin.items()
        },
        "overridden": [
            {"pointer": pointer, "layer": said[index].layer, "revision": said[index].revision}
            for pointer, index in explained.overridden
        ],
    }


def explanation_rows(response: ExplainPolicyResponse) -> list[tuple[str, ...]]:
    """The same as rows of a table."""
    explained, said = _explained(response), response.layers
    rows: list[tuple[str, ...]] = [
        (pointer or '""', _value(explained.effective, pointer), *_whose(said[origin.layer]), "locked" if origin.locked else "")
        for pointer, origin in explained.origin.items()
    ]
    for pointer, index in explained.overridden:
        rows.append((pointer, _value(json.loads(said[index].says.settings), pointer), *_whose(said[index]), "overridden"))
    return rows


def _whose(layer: Any) -> tuple[str, str]:
    return layer.layer, str(layer.revision)


def _explained(response: ExplainPolicyResponse) -> Any:
    from enlist import layers, values

    return layers.explain(
        [layers.Layer(values.parse(each.says.settings), tuple(each.says.locks), each.says.put_back) for each in response.layers]
    )


def _value(settings: Any, pointer: str) -> str:
    from enlist import pointers

    value = pointers.find(settings, pointer)
    return "(absent)" if value is pointers.MISSING else _short(json.dumps(value, ensure_ascii=False))


# --- What a change would do ---------------------------------------------------------------------------------------------------


def plan_as_json(changes: Sequence[PlanPolicyResponse]) -> list[dict[str, object]]:
    """What would change at each server, by name; where several bear a name, the id stands behind it.

    `partial`, true, is there for those below a middle server: what their own primaries say besides is known there alone.
    """
    names = Counter(name_of(server) for change in changes for server in change.servers)
    found = [
        {"server": _told_apart(server, names), "before": before, "after": after, **({"partial": True} if _below(server) else {})}
        for change in changes
        for before, after in [(_parsed(change.before), _parsed(change.after))]  # once for all servers that would change alike
        for server in change.servers
    ]
    return sorted(found, key=lambda each: str(each["server"]))


def _below(server: ServerLabel) -> bool:
    """Whether it stands below a middle server."""
    return "/" in server.id


def _told_apart(server: ServerLabel, names: Counter[str]) -> str:
    name = name_of(server)
    return f"{name} ({server.id})" if names[name] > 1 else name


def _parsed(settings: bytes) -> Any:
    return json.loads(settings) if settings else None


def plan_as_text(changes: Sequence[PlanPolicyResponse]) -> str:
    """The same for people: what changes, value by value, and at which servers."""
    if not changes:
        return "No server would change."
    said = [_change_as_text(change) for change in changes]
    if any(_below(server) for change in changes for server in change.servers):
        said.append(PARTIAL)
    return "\n\n".join(said)


def _change_as_text(change: PlanPolicyResponse) -> str:
    names = sorted(map(name_of, change.servers))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    servers = "1 server" if len(names) == 1 else f"{len(names)} servers"
    before, after = _leaves(_parsed(change.before)), _leaves(_parsed(change.after))
    lines = [
        f"  {pointer or '(all)'}: {before.get(pointer, '(absent)')} -> {after.get(pointer, '(absent)')}"
        for pointer in sorted(before.keys() | after.keys())
        if before.get(pointer) != after.get(pointer)
    ]
    return "\n".join([f"{servers}: {', '.join(names[:NAMED])}{more}", *lines])


def _leaves(settings: Any) -> dict[str, str]:
    return {} if settings is None else dict(_walk(settings, ""))


def _walk(value: Any, pointer: str) -> Iterator[tuple[str, str]]:
    from enlist import pointers

    if isinstance(value, dict) and value:
        for name, member in value.items():
            yield from _walk(member, pointers.child(pointer, name))
    else:
        yield pointer, _short(json.dumps(value, ensure_ascii=False))
