"""When the next message of a server is heard: one that floods holds up itself alone."""

from __future__ import annotations

from enlist.runtime.link_outbox import WINDOW

PACE = 0.05
"""Seconds from one message of a secondary to the next that is heard, on average."""
AHEAD = (WINDOW - 1) * PACE
"""Seconds by which messages may be ahead of that: as many as an honest secondary has on their way are heard in a row."""
LITTLE = 0.01
SHARE = 5
"""Once hearing a server's messages, whatever they are, took longer than `LITTLE`, the next one is heard after a pause `SHARE` times
as long: over time, one server gets at most a sixth of the event loop's time."""


class Hearing:
    """The turns of one link. All times are seconds of one clock that is never set."""

    def __init__(self, now: float) -> None:
        """The link has opened."""
        self._heard = now
        self._spent = 0.0
        """Seconds spent on hearing it lately. Each second of pause takes 1 / `SHARE` of a second off."""
        self._rested = now
        self._due = now
        """When the next paced message would be heard if all came evenly, `PACE` apart."""

    def turn(self, paced: bool) -> float:
        """When the next message may be heard; `paced` if it is one that flood pacing is for."""
        return max(self._rested, self._due - AHEAD) if paced else self._rested

    def heard(self, paced: bool, begun: float, ended: float) -> None:
        """A message was heard, from `begun` until `ended`."""
        self._spent = max(0.0, self._spent - (begun - self._heard) / SHARE) + ended - begun
        self._heard = ended
        self._rested = ended + SHARE * self._spent if self._spent > LITTLE else ended
        if paced:
            self._due = max(self._due, begun) + PACE
