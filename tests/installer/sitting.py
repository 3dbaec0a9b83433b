"""A person before the wizard: its questions by name, and the ways through them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.installer.person import Person, tree

JOIN, PRIMARY, SAME, ACCOUNT, API_KEY = (
    "Join line",
    "Primary server address",
    "Is it the same there?",
    "Account domain name",
    "API key",
)
NAME, CLIENTS, CONFIG, DATA = "Display name", "Address where clients find this server", "Configuration file", "Data folder"
WRITE, AGAIN = "Write this and register?", "Go through the questions again?"


@contextmanager
def sitting(place: Path, *arguments: str) -> Iterator[Person]:
    """A person who started the wizard for the server at `place`."""
    with Person("--config", str(place / "secondary.toml"), "--data", str(place / "data"), *arguments) as person:
        yield person


def reaches(person: Person, address: str) -> None:
    """The first questions, up to a primary whose fingerprint was compared."""
    person.answers(JOIN)
    person.answers(PRIMARY, address)
    person.answers(SAME, "y")


def goes_on(person: Person, name: str) -> None:
    """From the API key on, to the summary."""
    person.answers(API_KEY)
    person.answers(NAME, name, instead=True)
    person.answers(CLIENTS, "192.0.2.10", instead=True)
    person.sees("Summary")


def stops(person: Person, place: Path, before: dict[str, bytes]) -> None:
    """Ctrl-C, and nothing was written."""
    person.presses_ctrl_c()
    person.sees("INTERRUPTED: Stopped. Nothing was written.")
    person.ends(1)
    assert tree(place.parent) == before
    assert not place.exists()
