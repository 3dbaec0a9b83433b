"""Why a server holds no link: a sentence for every state but trusted, harmless whatever was given as the reason."""

from __future__ import annotations

import pytest

from enlist.reasons import Reason
from enlist.runtime import standings
from enlist.v1 import server_pb2

STATES = [name.removeprefix("SERVER_STATE_").lower() for name in dict(server_pb2.ServerState.items())]


@pytest.mark.parametrize("state", sorted(set(STATES) - {"unspecified", "trusted"}))
def test_every_state_that_holds_no_link_has_a_sentence(state: str) -> None:
    refused = standings.not_trusted(state, 1_795_223_465, "because\x1b[31m")
    assert standings.SENTENCES[state] in refused.message
    assert "2026-11-21T01:11:05Z" in refused.message
    assert "because\\x1b[31m" in refused.message  # attacks row 41
    assert "enlist-setup" in refused.message or refused.retry


@pytest.mark.parametrize("state", ["trusted", "unspecified", "promoted"])
def test_a_state_that_explains_nothing_is_another_version_s(state: str) -> None:
    assert standings.not_trusted(state, 0).reason is Reason.VERSION_INCOMPATIBLE
