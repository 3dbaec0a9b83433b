"""docs/states.md says what the table says: it is written from it, and this test wants no difference."""

from __future__ import annotations

import re
from pathlib import Path

from enlist_primary.model.servers import TRANSITIONS, State
from scripts import states

PAGE = Path(__file__).resolve().parents[3] / "docs" / "states.md"
EDGE = re.compile(r"^    (\S+) --> ([\w\[\]*]+)(?:: (.*))?$", re.MULTILINE)


def test_the_committed_page_is_the_generated_one() -> None:
    assert PAGE.read_text() == states.page(), "run scripts/generate"


def test_the_diagram_shows_every_change_and_no_other() -> None:
    drawn = {
        (from_, event, to) for from_, to, events in EDGE.findall(PAGE.read_text()) for event in filter(None, events.split(", "))
    }
    wanted = {
        (state or "[*]", event, to)
        for state, row in TRANSITIONS.items()
        if state not in states.ANEW
        for event, to in row.items()
        if to is not state
    }
    assert drawn == wanted


def test_the_design_s_four_pasts_begin_anew() -> None:
    assert set(states.ANEW) == {State.EXPIRED, State.WITHDRAWN, State.DEPARTED, State.REMOVED}
