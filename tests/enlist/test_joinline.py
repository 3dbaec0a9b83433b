"""Join lines: what is printed is what is read, and what was cut or altered is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist import joinline
from enlist.joinline import JoinLine
from enlist.names import Address
from enlist.reasons import Reason, Refused

SECRET = "enl_abcdefghij_" + "k" * 32
LINE = JoinLine(Address("primary.example", 13299), "acme.example", "ab" * 32, SECRET)


@pytest.mark.parametrize("host", ["primary.example", "10.0.0.3", "2001:db8::1"])
def test_a_join_line_is_read_as_it_was_printed(host: str) -> None:
    line = JoinLine(Address(host, 443), "acme.example", "ab" * 32, SECRET)
    assert joinline.parse(str(line)) == line


@pytest.mark.parametrize(("typed", "host"), [("Primary.example.", "primary.example"), ("bücher.example", "xn--bcher-kva.example")])
def test_a_join_line_may_hold_any_form_of_a_name(typed: str, host: str) -> None:
    line = str(LINE).replace("primary.example", typed)
    assert joinline.parse(line).address == Address(host, 13299)


def test_a_file_may_hold_comments_and_empty_lines_around_it() -> None:
    assert joinline.parse(f"# for the front desk\n\n  {LINE}  \r\n\n") == LINE


def test_the_api_key_is_not_in_the_repr() -> None:
    """Attacks row 44."""
    assert SECRET not in repr(LINE)
    assert SECRET in str(LINE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        f"{LINE}\n{LINE}",
        str(LINE)[:-60],
        str(LINE).replace("enlist://", "https://"),
        str(LINE).replace("enlist://", ""),
        str(LINE).replace("acme.example", "Acme.example"),
        str(LINE).replace("acme.example", "acme.example/x"),
        str(LINE).replace("acme.example", "acme\t.example"),
        str(LINE).replace("acme.example", "acm\u200be.example"),
        str(LINE).replace("/acme.example", ""),
        str(LINE).replace("primary=ab", "primary=xy"),
        str(LINE).replace("primary.example", "user@primary.example"),
        str(LINE).replace(":13299", ":port"),
        f"{LINE}&primary=" + "cd" * 32,
        f"{LINE}&more=1",
        f"{LINE}&" + "a" * 1000,
        str(LINE).replace("primary.example", "[::1"),
    ],
)
def test_a_line_that_was_cut_or_altered_is_refused_without_showing_it(text: str) -> None:
    """Attacks rows 5 and 44: no near miss is read, and the refusal does not repeat the secret."""
    with pytest.raises(Refused) as caught:
        joinline.parse(text)
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert SECRET not in caught.value.message


@given(st.text())
def test_no_text_makes_it_fail_otherwise(text: str) -> None:
    for attempt in (text, f"enlist://{text}", f"enlist://a/{text}", str(LINE) + text):
        try:
            joinline.parse(attempt)
        except Refused:
            continue


@given(st.binary(max_size=300))
def test_no_file_makes_it_fail_otherwise(data: bytes) -> None:
    with pytest.raises(Refused):
        joinline.parse(data.decode(errors="replace"))
