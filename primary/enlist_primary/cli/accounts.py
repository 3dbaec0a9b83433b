"""`account add|list|show|set`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from enlist_primary.cli import output

if TYPE_CHECKING:
    from enlist.v1.account_pb2 import Account


def add_commands(commands: Any) -> None:
    """Adds the commands of this file."""
    account = commands.add_parser("account", help="add, list, show and change accounts")
    verbs = account.add_subparsers(required=True, metavar="VERB")
    add = verbs.add_parser("add", help="make an account")
    add.add_argument("domain", metavar="DOMAIN", help="the account's domain, such as acme.example")
    add.add_argument("--contact", default="", metavar="TEXT", help="whom people at a server may ask")
    add.set_defaults(run=_add)
    listing = verbs.add_parser("list", help="list the accounts")
    listing.set_defaults(run=_list)
    show = verbs.add_parser("show", help="show an account")
    show.add_argument("domain", metavar="DOMAIN")
    show.set_defaults(run=_show)
    change = verbs.add_parser("set", help="change an account")
    change.add_argument("domain", metavar="DOMAIN")
    change.add_argument("--contact", metavar="TEXT", help="whom people at a server may ask")
    change.add_argument("--default-api-key", choices=["on", "off"], help="whether servers may ask to join without an API key")
    change.add_argument("--landing-group", metavar="PATH", help="where servers land that nobody has given another place")
    change.set_defaults(run=_set)
    for parser in (add, listing, show, change):
        output.add_json(parser)


def _add(arguments: argparse.Namespace) -> int:
    from enlist.v1 import account_pb2, account_pb2_grpc
    from enlist_primary.cli.client import call

    request = account_pb2.CreateAccountRequest(domain=arguments.domain, contact=arguments.contact)
    account = call(arguments, lambda channel: account_pb2_grpc.AccountServiceStub(channel).CreateAccount(request))
    return _print(account, arguments, f"The account {account.domain} is made.")


def _list(arguments: argparse.Namespace) -> int:
    from enlist.v1 import account_pb2, account_pb2_grpc
    from enlist_primary.cli.client import call

    request = account_pb2.ListAccountsRequest()
    listed = call(arguments, lambda channel: account_pb2_grpc.AccountServiceStub(channel).ListAccounts(request)).accounts
    if arguments.json:
        output.print_json([as_json(account) for account in listed])
        return 0
    rows = [(a.domain, "on" if a.default_api_key else "off", a.contact) for a in listed]
    output.print_table(("ACCOUNT", "DEFAULT API KEY", "CONTACT"), rows, "There are no accounts. Make one with: account add DOMAIN")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from enlist.names import resource
    from enlist.v1 import account_pb2, account_pb2_grpc
    from enlist_primary.cli.client import call

    request = account_pb2.GetAccountRequest(name=resource("accounts", arguments.domain))
    return _print(call(arguments, lambda channel: account_pb2_grpc.AccountServiceStub(channel).GetAccount(request)), arguments)


def _set(arguments: argparse.Namespace) -> int:
    from enlist.names import resource
    from enlist.v1 import account_pb2, account_pb2_grpc
    from enlist_primary.cli.client import call

    name, landing = resource("accounts", arguments.domain), arguments.landing_group
    request = account_pb2.UpdateAccountRequest(name=name, contact=arguments.contact, landing_group=landing)
    if arguments.default_api_key is not None:
        request.default_api_key = arguments.default_api_key == "on"
    return _print(call(arguments, lambda channel: account_pb2_grpc.AccountServiceStub(channel).UpdateAccount(request)), arguments)


def _print(account: Account, arguments: argparse.Namespace, sentence: str = "") -> int:
    if arguments.json:
        output.print_json(as_json(account))
        return 0
    switch = "on" if account.default_api_key else "off"
    lines = (
        f"default API key  {switch}",
        f"contact          {account.contact or '-'}",
        f"landing group    {account.landing_group}",
    )
    output.say(sentence or "\n  ".join((account.domain, *lines)))
    return 0


def as_json(account: Account) -> dict[str, object]:
    """An account as `--json` shows it."""
    return {
        "domain": account.domain,
        "contact": account.contact,
        "default_api_key": account.default_api_key,
        "landing_group": account.landing_group,
        "created": output.time_of(account, "create_time"),
        "head": account.head,
    }
