"""`policy set|plan|remove|rollback|show|list|history|explain`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from enlist.reasons import Reason, Refused
from enlist.runtime.terminal import escape
from enlist_primary.cli import output, policy_shown
from enlist_primary.cli.arguments import STAGES, read_document
from enlist_primary.cli.groups import WHERE, group_of, shown

if TYPE_CHECKING:
    import grpc.aio

    from enlist.v1.policy_pb2 import ExplainPolicyResponse, Policy, PolicyKey, PolicyReport, Stages
    from enlist.v1.policy_pb2_grpc import PolicyServiceAsyncStub

_NO_SUCCESS = frozenset({"failed", "rolled_back", "received", "pending"})
WATCH = (
    "stay until every server has reported, and show how it fares; exit status 1 if it failed or was rolled back somewhere, is "
    "not in force yet, or its rollout stopped (a server without a handler, or one that is unreachable, is no failure)"
)
NONE = "There are no policies. Set one with: enlist-primary policy set DOMAIN/PATH --kind KIND --file settings.json"


def add_commands(commands: Any) -> None:
    """Adds the commands of this file."""
    noun = commands.add_parser("policy", help="say what the servers of a group shall be like, and see how it fares")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    change = verbs.add_parser("set", help="set what a group says of a kind, whole")
    change.set_defaults(run=lambda arguments: _set(change, arguments))
    plan = verbs.add_parser("plan", help="show which servers that would change, and how; nothing is stored")
    plan.set_defaults(run=lambda arguments: _plan(plan, arguments))
    remove = verbs.add_parser("remove", help="end a group's policy of a kind")
    remove.set_defaults(run=_remove)
    rollback = verbs.add_parser("rollback", help="set a policy to what it was")
    rollback.set_defaults(run=lambda arguments: _roll_back(rollback, arguments))
    show = verbs.add_parser("show", help="show a policy, and how it fares at each server")
    show.set_defaults(run=_show)
    history = verbs.add_parser("history", help="list what a policy is and was, newest first")
    history.set_defaults(run=_history)
    for parser in (change, plan, remove, rollback, show, history):
        parser.add_argument("group", metavar=WHERE, help="the group, such as acme.example/Sites/Paris")
    for parser in (change, plan):
        _add_layer(parser)
    rollback.add_argument("--revision", type=int, default=0, metavar="N", help="which one (default: what it last was before)")
    for parser in (change, plan, rollback):
        _add_stages(parser)
    for parser in (change, rollback):
        parser.add_argument("--watch", action="store_true", help=WATCH)
    plan.add_argument("--watch", action="store_true", help="as for set, and without effect: a plan is over at once")
    listing = verbs.add_parser("list", help="list policies, and how they fare")
    listing.add_argument("domain", nargs="?", default="-", metavar="DOMAIN", help="of this account (default: all)")
    listing.set_defaults(run=_list)
    explain = verbs.add_parser("explain", help="show what a server gets, each value with the group that set it")
    explain.add_argument("server", metavar="NAME_OR_ID", help="the server's name, if only one bears it, or its id")
    explain.add_argument("--account", default="-", metavar="DOMAIN", help="look in this account only")
    explain.set_defaults(run=_explain)
    for parser in (change, plan, remove, rollback, show, history, explain):
        parser.add_argument("--kind", required=True, metavar="KIND", help="the kind of policy, such as chrony")
    for parser in (change, plan, remove, rollback, show, history, listing, explain):
        output.add_json(parser)


def _add_layer(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--file", required=True, metavar="FILE", help="the settings, a JSON object; - for standard input")
    lock = 'a JSON Pointer to what the groups below cannot change, may be repeated; "" for everything'
    parser.add_argument("--lock", action="append", default=[], metavar="POINTER", help=lock)
    parser.add_argument("--put-back", action="store_true", help="servers put back what was changed locally, and not only report it")


def _add_stages(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stages", metavar="SIZES", help=STAGES)
    parser.add_argument("--stop-after", type=int, metavar="N", help="with --stages: stop when N servers failed (default: 1)")
    confirm = "with --stages: who is not confirmed within this time, such as 10m, goes back by itself"
    parser.add_argument("--confirm", metavar="TIME", help=confirm)


# --- Deciding -----------------------------------------------------------------------------------------------------------------


def _set(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from enlist.v1 import policy_pb2

    request = policy_pb2.SetPolicyRequest(key=_key(arguments), stages=_stages(parser, arguments))
    request.layer.CopyFrom(_layer(arguments))
    return _decided(arguments, _call(arguments, lambda stub: stub.SetPolicy(request)), "is set")


def _roll_back(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from enlist.v1 import policy_pb2

    stages = _stages(parser, arguments)
    request = policy_pb2.RollBackPolicyRequest(key=_key(arguments), revision=arguments.revision, stages=stages)
    return _decided(arguments, _call(arguments, lambda stub: stub.RollBackPolicy(request)), "is set back")


def _decided(arguments: argparse.Namespace, policy: Policy, what: str) -> int:
    """Shows what was decided; with --watch, what comes of it."""
    status = 0
    if not arguments.json:
        place = shown(policy.account, policy.group)
        output.say(f"The policy {policy.kind} of {place} {what}: revision {policy.revision}, {policy_shown.fares(policy)}.")
    if arguments.watch:
        policy, reports = _watched(arguments, policy)
        status = _verdict(policy, reports, arguments.json)
    if arguments.json:
        output.print_json(policy_shown.as_json(policy))
    return status


def _watched(arguments: argparse.Namespace, policy: Policy) -> tuple[Policy, list[PolicyReport]]:
    """The policy when the watching is over, and then how it fares at each server."""
    from enlist_primary.cli.client import call
    from enlist_primary.cli.policy_watch import Progress, watch

    progress = Progress(sys.stderr)
    try:
        return call(arguments, lambda channel: watch(channel, _key(arguments), policy, progress))
    except KeyboardInterrupt:
        place = f"{shown(policy.account, policy.group)} --kind {policy.kind}"
        sentence = f"The watching is over, the policy stays as it is set. See: enlist-primary policy show {place}"
        raise Refused(Reason.INTERRUPTED, sentence) from None
    finally:
        progress.end()


def _verdict(policy: Policy, reports: list[PolicyReport], as_json: bool) -> int:
    """Says how it ended, and names those where it is not as it should be.

    As for a rollout, no failure is who has no handler, nor what somebody at the server changed later.
    """
    if not as_json:
        output.say(f"Now: {policy_shown.fares(policy, stage=True)}.")
    states = {policy_shown.state_of(each) for each in reports}
    for each in reports:
        state = policy_shown.state_of(each)
        if state not in ("applied", "unreachable"):
            message = f": {each.message}" if each.message else ""
            line = f"{policy_shown.name_of(each.server)}: {state.replace('_', ' ')}{message}"
            print(escape(line), file=sys.stderr)
    return 1 if states & _NO_SUCCESS or policy_shown.stopped(policy) else 0


def _remove(arguments: argparse.Namespace) -> int:
    from enlist.v1 import policy_pb2

    domain, path = group_of(arguments.group)
    request = policy_pb2.RemovePolicyRequest(key=_key(arguments))
    _call(arguments, lambda stub: stub.RemovePolicy(request))
    if arguments.json:
        output.print_json({"account": domain, "group": path, "kind": arguments.kind, "removed": True})
    else:
        output.say(f"The policy {arguments.kind} of {shown(domain, path)} is removed.")
    return 0


def _layer(arguments: argparse.Namespace) -> Any:
    from enlist.v1 import policy_pb2

    return policy_pb2.Layer(
        settings=read_document(arguments.file, "a policy has"), locks=arguments.lock, put_back=arguments.put_back
    )


def _stages(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Stages | None:
    """The stages asked for, as sent; None for all at once. What makes no sense is refused before anything is sent."""
    if arguments.stages is None:
        if arguments.stop_after is not None or arguments.confirm is not None:
            parser.error("--stop-after and --confirm go with --stages")
        return None
    from enlist.runtime.config import duration
    from enlist.v1 import policy_pb2
    from enlist_primary.model.rollouts import parse_stages

    confirm = duration(arguments.confirm) if arguments.confirm is not None else 0
    stop_after = 1 if arguments.stop_after is None else arguments.stop_after
    if stop_after < 1:
        parser.error("--stop-after is 1 or more")
    stages = parse_stages([size.strip() for size in arguments.stages.split(",")], stop_after, confirm)
    return policy_pb2.Stages(sizes=stages.sizes, stop_after=stages.stop_after, confirm_seconds=stages.confirm_seconds)


# --- Looking ------------------------------------------------------------------------------------------------------------------


def _plan(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from enlist.v1 import policy_pb2
    from enlist_primary.cli.client import call

    _stages(parser, arguments)
    request = policy_pb2.PlanPolicyRequest(key=_key(arguments), layer=_layer(arguments))

    async def plan(channel: grpc.aio.Channel) -> list[Any]:
        return [each async for each in _stub(channel).PlanPolicy(request)]

    changes = call(arguments, plan)
    if arguments.json:
        output.print_json_rows(policy_shown.plan_as_json(changes))
    else:
        output.say(policy_shown.plan_as_text(changes))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from enlist.v1 import policy_pb2

    key = _key(arguments)

    async def show(stub: PolicyServiceAsyncStub) -> tuple[Policy, list[PolicyReport]]:
        policy = await stub.GetPolicy(policy_pb2.GetPolicyRequest(key=key))
        listed = await stub.ListPolicyReports(policy_pb2.ListPolicyReportsRequest(key=key))
        return policy, list(listed.reports)

    policy, reports = _call(arguments, show)
    if arguments.json:
        output.print_json(policy_shown.whole_as_json(policy, reports))
        return 0
    output.say(policy_shown.as_text(policy))
    rows = [policy_shown.report_row(each) for each in reports]
    output.print_table(("SERVER", "GROUP", "STATE", "REVISION", "SINCE", "MESSAGE"), rows, "There is no server it is for.")
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from enlist.names import resource
    from enlist.v1 import policy_pb2

    request = policy_pb2.ListPoliciesRequest(parent=resource("accounts", arguments.domain))
    listed = _call(arguments, lambda stub: stub.ListPolicies(request)).policies
    if arguments.json:
        output.print_json([policy_shown.as_json(each) for each in listed])
        return 0
    rows = [
        (shown(p.account, p.group), p.kind, str(p.revision), policy_shown.fares(p), policy_shown.rollout_words(p)) for p in listed
    ]
    output.print_table(("GROUP", "KIND", "REVISION", "STATE", "ROLLOUT"), rows, NONE)
    return 0


def _history(arguments: argparse.Namespace) -> int:
    from enlist.v1 import policy_pb2

    request = policy_pb2.ListPolicyRevisionsRequest(key=_key(arguments))
    listed = _call(arguments, lambda stub: stub.ListPolicyRevisions(request)).revisions
    if arguments.json:
        output.print_json([policy_shown.revision_as_json(each) for each in listed])
        return 0
    rows = [policy_shown.revision_row(each) for each in listed]
    output.print_table(("REVISION", "TIME", "BY", "SETTINGS", "LOCKS", "PUT BACK", "ROLLOUT"), rows, "")
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from enlist.v1 import policy_pb2
    from enlist_primary.cli.client import call
    from enlist_primary.cli.servers import find

    async def explain(channel: grpc.aio.Channel) -> ExplainPolicyResponse:
        server = await find(channel, arguments.server, arguments.account)
        return await _stub(channel).ExplainPolicy(policy_pb2.ExplainPolicyRequest(name=server.name, kind=arguments.kind))

    response = call(arguments, explain)
    if arguments.json:
        output.print_json(policy_shown.explanation_as_json(response))
        return 0
    empty = f'No policy of the kind "{arguments.kind}" reaches this server.'
    output.print_table(policy_shown.EXPLAINED, policy_shown.explanation_rows(response), empty)
    return 0


# --- How ----------------------------------------------------------------------------------------------------------------------


def _key(arguments: argparse.Namespace) -> PolicyKey:
    from enlist.names import resource
    from enlist.v1 import policy_pb2

    domain, path = group_of(arguments.group)
    return policy_pb2.PolicyKey(parent=resource("accounts", domain), group=path, kind=arguments.kind)


def _stub(channel: grpc.aio.Channel) -> PolicyServiceAsyncStub:
    from enlist.v1 import policy_pb2_grpc

    return policy_pb2_grpc.PolicyServiceStub(channel)


def _call(arguments: argparse.Namespace, work: Callable[[PolicyServiceAsyncStub], Awaitable[Any]]) -> Any:
    from enlist_primary.cli.client import call

    return call(arguments, lambda channel: work(_stub(channel)))
