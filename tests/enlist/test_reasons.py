"""The one table of reasons (habit: the table covers the enum, and a test says so)."""

import grpc
import pytest

from enlist.reasons import TABLE, Reason, Refused


def test_the_table_covers_every_reason_and_nothing_else() -> None:
    assert set(TABLE) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_its_own_name_and_leads_to_a_grpc_status(reason: Reason) -> None:
    assert reason == reason.name == reason.name.upper()
    assert TABLE[reason].status in grpc.StatusCode.__members__
    assert TABLE[reason].status not in ("OK", "UNKNOWN")


def test_a_refusal_says_its_sentence_and_whether_to_try_again() -> None:
    refused = Refused(Reason.UNREACHABLE, "Nobody is there.")
    assert (str(refused), refused.reason, refused.retry) == ("Nobody is there.", "UNREACHABLE", True)
    assert not Refused(Reason.SERVER_REVOKED, "").retry
