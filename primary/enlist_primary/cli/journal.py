"""`journal show|verify`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from enlist_primary.cli import output

if TYPE_CHECKING:
    import grpc.aio

    from enlist.v1.journal_pb2 import JournalEntry


def add_commands(commands: Any) -> None:
    """Adds the commands of this file."""
    noun = commands.add_parser("journal", help="show and verify the list of decisions")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    show = verbs.add_parser("show", help="show the decisions, oldest first")
    show.set_defaults(run=_show)
    verify = verbs.add_parser("verify", help="compute the hash chain anew, from the first decision to the last")
    verify.set_defaults(run=_verify)
    for parser in (show, verify):
        explained = 'of this account; "." is the primary\'s own (default: all)'
        parser.add_argument("domain", nargs="?", default="", metavar="DOMAIN", help=explained)
        output.add_json(parser)


async def _accounts(channel: grpc.aio.Channel, domain: str) -> list[str]:
    from enlist.v1 import account_pb2, account_pb2_grpc

    stub: account_pb2_grpc.AccountServiceAsyncStub = account_pb2_grpc.AccountServiceStub(channel)
    if domain:
        return [domain]
    listed = await stub.ListAccounts(account_pb2.ListAccountsRequest())
    return [".", *(account.domain for account in listed.accounts)]


async def _fetch(channel: grpc.aio.Channel, domain: str) -> list[JournalEntry]:
    from enlist.names import resource
    from enlist.v1 import journal_pb2, journal_pb2_grpc

    stub: journal_pb2_grpc.JournalServiceAsyncStub = journal_pb2_grpc.JournalServiceStub(channel)
    entries: list[JournalEntry] = []
    for account in await _accounts(channel, domain):
        after, head = 0, 1
        while after < head:
            page = await stub.ListEntries(journal_pb2.ListEntriesRequest(parent=resource("accounts", account), after=after))
            entries += page.entries
            after, head = (page.entries[-1].number if page.entries else page.head), page.head
    return entries


def _show(arguments: argparse.Namespace) -> int:
    from enlist_primary.cli.client import call

    entries = call(arguments, lambda channel: _fetch(channel, arguments.domain))
    if arguments.json:
        output.print_json([as_json(entry) for entry in entries])
        return 0
    rows = [
        (e.account, str(e.number), output.time_of(e, "time") or "-", e.actor, e.action, e.subject, _remarks(e)) for e in entries
    ]
    output.print_table(("ACCOUNT", "NO", "TIME", "WHO", "DID", "TO", "REMARKS"), rows, "Nothing has been decided yet.")
    return 0


def _remarks(entry: JournalEntry) -> str:
    parts = [f"evidence: {entry.evidence}"] if entry.evidence else []
    parts += [f"from: {entry.source}"] if entry.source else []
    return ", ".join(parts + [f"{name}: {value}" for name, value in sorted(entry.detail.items())])


def _verify(arguments: argparse.Namespace) -> int:
    from enlist.names import resource
    from enlist.v1 import journal_pb2, journal_pb2_grpc
    from enlist_primary.cli.client import call

    async def verify(channel: grpc.aio.Channel) -> dict[str, int]:
        stub: journal_pb2_grpc.JournalServiceAsyncStub = journal_pb2_grpc.JournalServiceStub(channel)
        counts = {}
        for account in await _accounts(channel, arguments.domain):
            request = journal_pb2.VerifyJournalRequest(parent=resource("accounts", account))
            counts[account] = (await stub.VerifyJournal(request)).entries
        return counts

    counts = call(arguments, verify)
    if arguments.json:
        output.print_json([{"account": account, "entries": entries, "sound": True} for account, entries in counts.items()])
        return 0
    for account, entries in counts.items():
        output.say(f"The journal of {account} is sound: {entries} entries.")
    return 0


def as_json(entry: JournalEntry) -> dict[str, object]:
    """A decision as `--json` shows it."""
    return {
        "account": entry.account,
        "number": entry.number,
        "time": output.time_of(entry, "time"),
        "actor": entry.actor,
        "method": entry.method,
        "source": entry.source or None,
        "action": entry.action,
        "subject": entry.subject,
        "evidence": entry.evidence or None,
        "detail": dict(entry.detail),
        "hash": entry.hash.hex(),
    }
