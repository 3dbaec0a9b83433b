"""The questions, driven by keys through prompt_toolkit's pipe."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from enlist.reasons import Reason, Refused
from enlist_installer import questions

ENTER, CTRL_C, CTRL_D, CTRL_U, DOWN = "\r", "\x03", "\x04", "\x15", "\x1b[B"


@pytest.fixture
def keys() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()):
        yield pipe


async def test_a_typed_answer_without_the_spaces_at_its_ends(keys: PipeInput) -> None:
    keys.send_text("  primary.example " + ENTER)
    assert await questions.ask(questions.PRIMARY, "") == "primary.example"


async def test_the_default_is_typed_already(keys: PipeInput) -> None:
    keys.send_text(ENTER)
    assert await questions.ask(questions.ACCOUNT, "acme.example") == "acme.example"
    keys.send_text(CTRL_U + "other.example" + ENTER)
    assert await questions.ask(questions.ACCOUNT, "acme.example") == "other.example"


async def test_typing_replaces_the_default_and_editing_keeps_it(keys: PipeInput) -> None:
    """Whoever sees a wrong answer again and types the right one means that one alone."""
    keys.send_text("other.example" + ENTER)
    assert await questions.ask(questions.ACCOUNT, "acme.example") == "other.example"
    keys.send_text("\x7f\x7f" + "ing" + ENTER)
    assert await questions.ask(questions.ACCOUNT, "acme.example") == "acme.examping"
    keys.send_text("\x1b[200~pasted.example\x1b[201~" + ENTER)
    assert await questions.ask(questions.ACCOUNT, "acme.example") == "pasted.example"


async def test_a_hidden_question_has_no_default(keys: PipeInput) -> None:
    keys.send_text(ENTER)
    assert await questions.ask(questions.API_KEY, "enl_old") == ""


@pytest.mark.parametrize(
    ("typed", "default", "answer"),
    [
        (ENTER, False, False),
        (ENTER, True, True),
        ("y" + ENTER, False, True),
        ("yes" + ENTER, False, True),
        ("n" + ENTER, True, False),
    ],
)
async def test_yes_or_no_takes_enter(keys: PipeInput, typed: str, default: bool, answer: bool) -> None:
    keys.send_text(typed)
    assert await questions.confirm(questions.SAME_FINGERPRINT, default) is answer


async def test_yes_answers_this_question_and_not_the_next(keys: PipeInput) -> None:
    keys.send_text("yes" + ENTER + ENTER)
    assert await questions.confirm(questions.SAME_FINGERPRINT, default=False)
    assert await questions.ask(questions.ACCOUNT, "") == ""


@pytest.mark.parametrize(("typed", "answer"), [(ENTER, "a"), (DOWN + ENTER, "b"), ("2" + ENTER, "b")])
async def test_one_of_several_by_arrow_or_number(keys: PipeInput, typed: str, answer: str) -> None:
    keys.send_text(typed)
    assert await questions.choose(questions.WHAT, {"a": "first", "b": "second"}) == answer


@pytest.mark.parametrize("key", [CTRL_C, CTRL_D])
async def test_stopping_at_a_question_is_a_refusal(keys: PipeInput, key: str) -> None:
    keys.send_text(key)
    with pytest.raises(Refused) as refused:
        await questions.ask(questions.PRIMARY, "")
    assert refused.value.reason is Reason.INTERRUPTED


async def test_ctrl_c_stops_at_yes_or_no_and_at_a_choice(keys: PipeInput) -> None:
    keys.send_text(CTRL_C)
    with pytest.raises(Refused):
        await questions.confirm(questions.SAME_FINGERPRINT, default=False)
    keys.send_text(CTRL_C)
    with pytest.raises(Refused):
        await questions.choose(questions.WHAT, {"a": "first"})


def test_a_given_answer_is_shown_but_a_hidden_one_is_not() -> None:
    assert questions.ACCOUNT.shown("acme.example") == "> Account domain name: acme.example"
    assert "enl_" not in questions.API_KEY.shown("enl_x")
