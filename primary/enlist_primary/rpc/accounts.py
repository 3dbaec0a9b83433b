"""AccountService: accounts and API keys."""

from __future__ import annotations

from typing import Any

from enlist import names
from enlist.reasons import Reason, Refused
from enlist.v1 import account_pb2 as pb
from enlist.v1 import account_pb2_grpc
from enlist_primary.messages import servers as render
from enlist_primary.model import accounts as model
from enlist_primary.model import api_keys as keys
from enlist_primary.model.accounts import Account
from enlist_primary.model.api_keys import ApiKey
from enlist_primary.operations import accounts, api_keys
from enlist_primary.operations.api_keys import Wanted
from enlist_primary.rpc.access import caller
from enlist_primary.rpc.context import Context
from enlist_primary.store import accounts as rows
from enlist_primary.store import api_keys as key_rows
from enlist_primary.store.database import Transaction

_KINDS = {number: kind for kind, number in render.KINDS.items()}


class Accounts(account_pb2_grpc.AccountServiceServicer):
    """Makes and changes accounts and API keys."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def CreateAccount(self, request: pb.CreateAccountRequest, context: Any) -> pb.Account:
        caller().require_all()
        own = self._context
        domain = names.account_domain(request.domain)
        made = await own.database.write(domain, accounts.create, domain, request.contact, caller().actor, own.new_id, own.now())
        return render.account(made)

    async def GetAccount(self, request: pb.GetAccountRequest, context: Any) -> pb.Account:
        domain = caller().require(model.from_resource(request.name))
        return render.account(await self._context.database.read(rows.load, domain))

    async def ListAccounts(self, request: pb.ListAccountsRequest, context: Any) -> pb.ListAccountsResponse:
        who = caller()
        listed: list[Account] = await self._context.database.read(rows.listed)
        return pb.ListAccountsResponse(accounts=[render.account(each) for each in listed if who.sees(each.domain)])

    async def UpdateAccount(self, request: pb.UpdateAccountRequest, context: Any) -> pb.Account:
        domain = caller().require(model.from_resource(request.name))
        contact = request.contact if request.HasField("contact") else None
        switch = request.default_api_key if request.HasField("default_api_key") else None
        landing = request.landing_group if request.HasField("landing_group") else None
        own = self._context
        row = await own.database.write(domain, accounts.update, domain, contact, switch, caller().actor, own.now(), landing)
        return render.account(row)

    async def CreateApiKey(self, request: pb.CreateApiKeyRequest, context: Any) -> pb.CreateApiKeyResponse:
        account = caller().require(model.from_resource(request.parent))
        kind = _KINDS.get(request.kind)
        if kind is None:
            raise Refused(Reason.INVALID_ARGUMENT, "An API key is restricted or full.")
        own = self._context
        group = request.group or names.ROOT_GROUP
        wanted = Wanted(kind, request.max_uses, tuple(request.networks), group, request.lifetime_seconds)
        text = keys.make(own.new_id(), own.random_bytes)
        id, secret = keys.parse(text)
        row = await own.database.write(account, api_keys.create, account, wanted, id, secret, caller().actor, own.new_id, own.now())
        return pb.CreateApiKeyResponse(api_key=render.api_key(row), secret=text)

    async def ListApiKeys(self, request: pb.ListApiKeysRequest, context: Any) -> pb.ListApiKeysResponse:
        account = caller().require(model.from_resource(request.parent))
        listed = await self._context.database.read(_listed, account)
        return pb.ListApiKeysResponse(api_keys=[render.api_key(each) for each in listed])

    async def RevokeApiKey(self, request: pb.RevokeApiKeyRequest, context: Any) -> pb.ApiKey:
        account, id = names.parse_resource(request.name, "accounts", "apiKeys")
        own = self._context
        row = await own.database.write(account, api_keys.revoke, caller().require(account), id, caller().actor, own.now())
        return render.api_key(row)


def _listed(tx: Transaction, account: str) -> list[ApiKey]:
    rows.load(tx, account)
    return key_rows.listed(tx, account)
