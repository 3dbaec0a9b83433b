"""`api-key add|list|revoke`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from enlist_primary.cli import output
from enlist_primary.cli.arguments import given

if TYPE_CHECKING:
    from enlist.v1.account_pb2 import ApiKey


def add_commands(commands: Any) -> None:
    """Adds the commands of this file."""
    noun = commands.add_parser("api-key", help="make, list and revoke API keys")
    verbs = noun.add_subparsers(required=True, metavar="VERB")
    add = verbs.add_parser("add", help="make an API key; it is shown once, alone on the last line")
    add.add_argument("domain", metavar="DOMAIN", help="the account's domain; \".\" for a vendor's API key, good in every account")
    add.add_argument("--full", action="store_true", help="servers that use it are trusted at once (otherwise they ask)")
    add.add_argument("--uses", type=_uses, default=0, metavar="N", help="how many servers may use it (default: any number)")
    add.add_argument("--expires", metavar="TIME", help="how long it is good: 30m, 12h, 7d (default: for ever)")
    add.add_argument("--network", action="append", default=[], metavar="CIDR", help="use it only from here; may be repeated")
    group = "group of the servers that use it, made if it is missing (default: the account's landing group)"
    add.add_argument("--group", type=given, metavar="PATH", help=group)
    add.set_defaults(run=_add)
    listing = verbs.add_parser("list", help="list the API keys of an account, without their secrets")
    listing.add_argument("domain", metavar="DOMAIN")
    listing.set_defaults(run=_list)
    revoke = verbs.add_parser("revoke", help="end an API key; servers that joined with it stay")
    revoke.add_argument("domain", metavar="DOMAIN")
    revoke.add_argument("id", metavar="ID", help="the API key's id, as list shows it")
    revoke.set_defaults(run=_revoke)
    for parser in (add, listing, revoke):
        output.add_json(parser)


def _uses(text: str) -> int:
    """A number of uses, and one that fits into a message."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else 0
    if not 0 < number < 2**31:
        raise argparse.ArgumentTypeError("a number from 1 to 2147483647 was expected")
    return number


def _add(arguments: argparse.Namespace) -> int:
    from enlist.names import resource
    from enlist.runtime.config import duration
    from enlist.v1 import account_pb2, account_pb2_grpc
    from enlist_primary.cli.client import call

    request = account_pb2.CreateApiKeyRequest(
        parent=resource("accounts", arguments.domain),
        kind=account_pb2.API_KEY_KIND_FULL if arguments.full else account_pb2.API_KEY_KIND_RESTRICTED,
        max_uses=arguments.uses,
        networks=arguments.network,
        group=arguments.group,
        lifetime_seconds=duration(arguments.expires) if arguments.expires else 0,
    )
    made = call(arguments, lambda channel: account_pb2_grpc.AccountServiceStub(channel).CreateApiKey(request))
    if arguments.json:
        output.print_json({**as_json(made.api_key), "api_key": made.secret})
        return 0
    what = "A server that uses it is trusted at once." if arguments.full else "A server that uses it waits to be authorized."
    output.say(f"The API key is shown this once. {what}")
    print(made.secret)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from enlist.names import resource
    from enlist.v1 import account_pb2, account_pb2_grpc
    from enlist_primary.cli.client import call

    request = account_pb2.ListApiKeysRequest(parent=resource("accounts", arguments.domain))
    listed = call(arguments, lambda channel: account_pb2_grpc.AccountServiceStub(channel).ListApiKeys(request)).api_keys
    if arguments.json:
        output.print_json([as_json(key) for key in listed])
        return 0
    rows = [
        (
            key.id,
            _kind(key),
            f"{key.uses}/{key.max_uses or 'any'}",
            _end(key),
            ",".join(key.networks) or "any",
            key.group,
            key.server_id or "-",
        )
        for key in listed
    ]
    header = ("ID", "KIND", "USED", "GOOD UNTIL", "NETWORKS", "GROUP", "INVITED SERVER")
    output.print_table(header, rows, "There are no API keys.")
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    from enlist.names import resource
    from enlist.v1 import account_pb2, account_pb2_grpc
    from enlist_primary.cli.client import call

    id = arguments.id.split("_")[1] if arguments.id.startswith("enl_") and arguments.id.count("_") == 2 else arguments.id
    request = account_pb2.RevokeApiKeyRequest(name=resource("accounts", arguments.domain, "apiKeys", id))
    key = call(arguments, lambda channel: account_pb2_grpc.AccountServiceStub(channel).RevokeApiKey(request))
    if arguments.json:
        output.print_json(as_json(key))
    else:
        output.say(f"The API key {key.id} is revoked.")
    return 0


def _kind(key: ApiKey) -> str:
    from enlist.v1 import account_pb2

    return output.name_of_enum(account_pb2.ApiKeyKind.Name(key.kind), "API_KEY_KIND_")


def _end(key: ApiKey) -> str:
    revoked = output.time_of(key, "revoke_time")
    return f"revoked {revoked}" if revoked else output.time_of(key, "expire_time") or "for ever"


def as_json(key: ApiKey) -> dict[str, object]:
    """An API key as `--json` shows it."""
    return {
        "id": key.id,
        "account": key.account,
        "kind": _kind(key),
        "uses": key.uses,
        "max_uses": key.max_uses or None,
        "networks": list(key.networks),
        "group": key.group,
        "created": output.time_of(key, "create_time"),
        "expires": output.time_of(key, "expire_time"),
        "revoked": output.time_of(key, "revoke_time"),
        "server_id": key.server_id or None,
    }
