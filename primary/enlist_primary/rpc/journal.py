"""JournalService: reads the list of decisions."""

from __future__ import annotations

from typing import Any

from enlist.v1 import journal_pb2 as pb
from enlist.v1 import journal_pb2_grpc
from enlist_primary.messages import servers as render
from enlist_primary.model import accounts as model
from enlist_primary.model.journal import JournalEntry
from enlist_primary.rpc.access import caller
from enlist_primary.rpc.context import Context
from enlist_primary.store import accounts, journal
from enlist_primary.store.database import Transaction

PAGE = 1000


class Journal(journal_pb2_grpc.JournalServiceServicer):
    """Shows and verifies journals."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def ListEntries(self, request: pb.ListEntriesRequest, context: Any) -> pb.ListEntriesResponse:
        account = caller().require(model.from_resource(request.parent))
        limit = min(request.page_size if request.page_size > 0 else PAGE, PAGE)
        head, listed = await self._context.database.read(_page, account, max(request.after, 0), limit)
        return pb.ListEntriesResponse(entries=[render.journal_entry(*each) for each in listed], head=head)

    async def VerifyJournal(self, request: pb.VerifyJournalRequest, context: Any) -> pb.VerifyJournalResponse:
        account = caller().require(model.from_resource(request.parent))
        known, whole = journal.beginning(account), False
        while not whole:
            known, whole = await self._context.database.read(journal.verify_page, account, known)
        return pb.VerifyJournalResponse(entries=known.number)


def _page(tx: Transaction, account: str, after: int, limit: int) -> tuple[int, list[tuple[JournalEntry, bytes]]]:
    return accounts.load(tx, account).head, journal.hashed_entries(tx, account, after, limit)
