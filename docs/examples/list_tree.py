"""Lists the tree of every account at a primary's API port. Needs nothing but `pip install enlist`.

    ENLIST_TOKEN=enlu_... python list_tree.py primary.example <primary's fingerprint>

`enlist-primary status` shows the fingerprint; the first owner's token is in the primary's data folder, `owner.token`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import grpc.aio

from enlist import certificates, channel, names
from enlist.reasons import Refused
from enlist.transport.dialer import Dialer
from enlist.v1 import account_pb2, account_pb2_grpc, hierarchy_pb2, hierarchy_pb2_grpc, registration_pb2, registration_pb2_grpc
from enlist.v1.server_pb2 import ServerState


async def list_tree(address: names.Address, fingerprint: str, token: str) -> None:
    """Prints accounts, groups and servers, once it is certain whose primary answers."""
    dialer = Dialer()
    probed = await dialer.probe(address)
    leaf = certificates.load(probed.leaf_der)
    async with dialer.channel(probed.endpoint, channel.pin(leaf)) as api:
        await check_identity(api, leaf, fingerprint)
        log_on = [("authorization", f"Bearer {token}")]  # only after the identity is certain
        accounts = account_pb2_grpc.AccountServiceStub(api)
        hierarchy = hierarchy_pb2_grpc.HierarchyServiceStub(api)
        listed = await channel.answer(accounts.ListAccounts(account_pb2.ListAccountsRequest(), metadata=log_on))
        for account in listed.accounts:
            print(account.domain)
            request = hierarchy_pb2.ListGroupsRequest(parent=account.name)
            groups = await channel.answer(hierarchy.ListGroups(request, metadata=log_on))
            # One page holds a thousand servers; with more, go on with next_page_token.
            everyone = hierarchy_pb2.ListServersRequest(parent=account.name)
            servers = await channel.answer(hierarchy.ListServers(everyone, metadata=log_on))
            for group in groups.groups:
                print(f"  {group.path}")
                for server in servers.servers:
                    if server.group == group.path:
                        state = ServerState.Name(server.state).removeprefix("SERVER_STATE_").lower()
                        print(f"    {server.display_name or server.id}  {state}  {'connected' if server.connected else '-'}")


async def check_identity(api: grpc.aio.Channel, leaf: certificates.x509.Certificate, fingerprint: str) -> None:
    """Ends the program unless the primary's authority has this fingerprint and answers for the certificate that is served."""
    stub = registration_pb2_grpc.RegistrationServiceStub(api)
    request = registration_pb2.DescribePrimaryRequest(protocol=channel.PROTOCOL)
    described = await channel.answer(stub.DescribePrimary(request, timeout=channel.RPC_TIMEOUT))
    authority = certificates.read_authority(described.authority_certificate)
    answers = certificates.answers_for(authority, leaf, described.leaf_statement, int(time.time()))
    if authority.fingerprint != fingerprint or not answers:
        sys.exit(f"This is not the primary you mean: its fingerprint is {authority.fingerprint}.")


def main() -> None:
    """Reads the command line."""
    if len(sys.argv) != 3 or "ENLIST_TOKEN" not in os.environ:
        sys.exit(__doc__)
    try:
        asyncio.run(list_tree(names.address(sys.argv[1]), names.fingerprint(sys.argv[2]), os.environ["ENLIST_TOKEN"]))
    except Refused as refused:
        sys.exit(f"{refused.reason}: {refused}")
    except BrokenPipeError:  # whoever reads what is printed has seen enough
        sys.stderr.close()


if __name__ == "__main__":
    main()
