"""The table of states of the design's section 5, written out a second time, pair by pair, for whoever tests against it.

One line per state, one column per event: the state it leads to, "." for a pair that is refused, "=" for a decision whose
result already holds. "ask" is to register and be held back by a denial, "again" with an API key or long after the denial,
"enrol" with a full API key. A pending server that leaves takes its own request back.
"""

from __future__ import annotations

from enlist_primary.model.servers import Event, State

_TABLE = """
           ask       again     enrol     invite  authorize deny   suspend   resume  revoke  withdraw  leave     remove  expire
none       pending   pending   trusted   invited .         .      .         .       .       .         .         .       .
expired    pending   pending   trusted   invited .         .      .         .       .       .         .         .       .
withdrawn  pending   pending   trusted   invited .         .      .         .       .       =         =         .       .
departed   pending   pending   trusted   invited .         .      .         .       .       .         =         .       .
removed    pending   pending   trusted   invited .         .      .         .       .       .         .         =       .
invited    .         .         trusted   .       .         .      .         .       .       withdrawn .         .       expired
pending    pending   pending   trusted   .       trusted   denied .         .       .       withdrawn withdrawn removed expired
denied     .         pending   pending   .       .         =      .         .       .       .         .         .       .
trusted    trusted   trusted   trusted   .       =         .      suspended =       revoked .         departed  removed .
suspended  suspended suspended suspended .       .         .      =         trusted revoked .         departed  removed .
revoked    .         .         .         .       .         .      .         .       =       .         .         .       .
"""

_HEADER, *_LINES = [line.split() for line in _TABLE.strip().splitlines()]

EVENTS = tuple(Event("ask again" if name == "again" else name) for name in _HEADER)
STATES = tuple(None if line[0] == "none" else State(line[0]) for line in _LINES)

CELLS: dict[tuple[State | None, Event], str] = {
    (state, event): cell
    for state, (_, *cells) in zip(STATES, _LINES, strict=True)
    for event, cell in zip(EVENTS, cells, strict=True)
}
"""What the table says of a state and an event: a state's name, "=" or "."."""

ALLOWED = tuple((state, event, State(cell)) for (state, event), cell in CELLS.items() if cell not in ".=")
HOLDING = tuple((state, event) for (state, event), cell in CELLS.items() if cell == "=" and state is not None)
FORBIDDEN = tuple((state, event) for (state, event), cell in CELLS.items() if cell == ".")


def leads_to(state: State | None, event: Event) -> State | None:
    """The state after the event, the same one if it holds already, or None if the pair is refused."""
    cell = CELLS[state, event]
    return None if cell == "." else state if cell == "=" else State(cell)
