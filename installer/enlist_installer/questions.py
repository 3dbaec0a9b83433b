"""The questions in their words and their order, thin over questionary; the only module that knows it.

Asking returns an answer or raises `Refused(INTERRUPTED)`: on Ctrl-C, Ctrl-D and a closed terminal alike. No colour is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import questionary
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys

from enlist.reasons import Reason, Refused
from enlist.runtime.terminal import escape

T = TypeVar("T")

_LOOKS: Mapping[str, Any] = {
    "qmark": ">",
    "style": questionary.Style([("qmark", "noinherit"), ("question", "bold"), ("answer", "noinherit")]),
}


class Question(NamedTuple):
    """What is asked: its name, and what to know when answering it. A hidden answer is never shown, neither are defaults for it."""

    name: str
    hint: str = ""
    hidden: bool = False

    def shown(self, answer: str) -> str:
        """An answer that was given beforehand, as if it had been typed."""
        shown = "(given)" if self.hidden and answer else escape(answer) or "(none)"
        return f"> {self.name}: {shown}"


JOIN_LINE = Question("Join line", "if you were given one; hidden, Enter for none", hidden=True)
PRIMARY = Question("Primary server address", "IP address or domain name")
ACCOUNT = Question("Account domain name", "need not match the address above")
API_KEY = Question("API key", "hidden; blank: an administrator must authorize", hidden=True)
NAME = Question("Display name", "for people")
SERVER_ADDRESS = Question("Address where clients find this server", "may be blank")
CONFIG = Question("Configuration file")
DATA = Question("Data folder")

SAME_FINGERPRINT = "Is it the same there?"
SAME_API_KEY = "Use the API key you gave before?"
WRITE_AND_REGISTER = "Write this and register?"
WRITE = "Write this?"
AGAIN = "Go through the questions again?"
ASK_AGAIN = "Ask to join again?"
SERVICE = "Install and start it as a service (systemd)?"
WHAT = "What do you want to do?"
REMOVE = "Leave the primary, and remove configuration, key and state here?"
BELOW = "A primary runs on this host. What should happen to the policies that it passes on to its servers?"
BEQUESTS = MappingProxyType(
    {
        "keep": "Keep them, and allow changes there",
        "freeze": "Keep them unchanged, with their locks",
        "delete": "Delete them",
    }
)
"""What may become of it, as `enlist-secondary leave --below` takes it."""
REMOVE_ALL_THE_SAME = "Remove the files here all the same? (The primary will still list this server.)"


async def ask(question: Question, default: str) -> str:
    """A line of text, the default already typed; spaces at either end do not count."""
    words = f"{question.name} ({question.hint}):" if question.hint else f"{question.name}:"
    if question.hidden:
        return str(await _answer(questionary.password(words, **_LOOKS))).strip()
    asked = questionary.text(words, default=default, key_bindings=_typing_replaces(default), **_LOOKS)
    return str(await _answer(asked)).strip()


def _typing_replaces(default: str) -> KeyBindings:
    """Whoever begins to type means another answer, and whoever begins to edit means this one: as with selected text elsewhere."""
    bindings, untouched = KeyBindings(), [default]

    @bindings.add(Keys.BracketedPaste)
    @bindings.add(Keys.Any)
    def _(event: KeyPressEvent) -> None:
        if untouched and event.current_buffer.text == untouched.pop():
            event.current_buffer.reset()
        event.current_buffer.insert_text("".join(event.data.splitlines()))

    return bindings


async def confirm(question: str, default: bool) -> bool:
    """Yes or no; "y" alone does not end the question, so that typing "yes" and Enter answers this one and not the next."""
    return bool(await _answer(questionary.confirm(question, default=default, auto_enter=False, **_LOOKS)))


async def choose(question: str, choices: Mapping[T, str]) -> T:
    """One of several, by arrow keys or by number, and Enter."""
    offered = [questionary.Choice(words, value=value) for value, words in choices.items()]
    answer: T = await _answer(questionary.select(question, offered, use_shortcuts=True, pointer=">", instruction=" ", **_LOOKS))
    return answer


async def _answer(asked: questionary.Question) -> Any:
    try:
        return await asked.unsafe_ask_async()
    except (KeyboardInterrupt, EOFError):
        raise Refused(Reason.INTERRUPTED, "Stopped.") from None
