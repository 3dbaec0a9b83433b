"""Names, addresses and ids: attacks rows 5 (near-miss names), 35 (input never names a file) and 41 (controls in names)."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist import names
from enlist.names import Address
from enlist.reasons import Reason, Refused


def refuses(form: Callable[[str], object], text: str) -> bool:
    try:
        form(text)
    except Refused as refused:
        return refused.reason is Reason.INVALID_ARGUMENT
    return False


DOMAIN_NEAR_MISSES = [
    "",
    ".",
    "acme.example.",
    ".acme.example",
    "acme..example",
    "Acme.example",
    " acme.example",
    "acme.example\n",
    "acme.example\0",
    "acme.exаmple",  # a Cyrillic letter
    "ａcme.example",
    "acme\u00ad.example",
    "acme。example",
    "acme/../example",
    "../acme.example",
    "acme.example/x",
    "-acme.example",
    "acme-.example",
    "acme_.example",
    "*.example",
    "10.0.0.1",
    "a" * 64 + ".example",
    ".".join(["a" * 60] * 5),
]


@pytest.mark.parametrize("text", ["acme.example", "a", "1-2.x3", "xn--bcher-kva.example", "a" * 63 + ".example"])
def test_an_account_domain_is_returned_unchanged(text: str) -> None:
    assert names.account_domain(text) == text


@pytest.mark.parametrize("text", DOMAIN_NEAR_MISSES)
def test_a_near_miss_of_an_account_domain_is_refused(text: str) -> None:
    """Attacks row 5."""
    assert refuses(names.account_domain, text)


def test_a_domain_in_capitals_or_with_a_final_dot_is_met_with_a_hint() -> None:
    with pytest.raises(Refused, match=r'Did you mean "acme\.example"\?'):
        names.account_domain(" ACME.example. ")


@given(st.text())
def test_no_text_passes_as_a_domain_that_is_not_plain_ascii(text: str) -> None:
    if not refuses(names.account_domain, text):
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")


@pytest.mark.parametrize("text", ["Front desk 2", "Кассa", "東京", "naïve", "a", "x" * 63, "-".join("ab"), "..x", "; rm $(x)"])
def test_a_display_name_is_any_printable_line(text: str) -> None:
    assert names.display_name(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " x",
        "x ",
        "--json",
        "a/b",
        "x" * 64,
        "a\nb",
        "\x1b[31mred",
        "a\u202egpj.exe",
        "\u200bx",
        "e\u0301",
        "a\0",
        "\ud800",
        "\ue000",
        ".",
        "..",
    ],
)
def test_a_display_name_that_would_mislead_is_refused(text: str) -> None:
    """Attacks rows 35, 36 and 41: no slash, no flag, no controls, no bidi overrides, one normal form."""
    assert refuses(names.display_name, text)


@given(st.text(max_size=70))
def test_every_display_name_shows_as_itself(text: str) -> None:
    if not refuses(names.display_name, text):
        assert names.printable(text)
        assert "/" not in text
        assert 0 < len(text) <= names.NAME_LIMIT


def test_a_note_may_be_empty_and_is_one_line() -> None:
    assert names.note("", "contact") == ""
    assert names.note("ops@acme.example", "contact") == "ops@acme.example"
    for text in ("a\nb", "x" * 201, "\x07"):
        with pytest.raises(Refused, match="contact"):
            names.note(text, "contact")


@pytest.mark.parametrize(("text", "path"), [("/", ()), ("", ()), ("Sites", ("Sites",)), ("/Sites/Paris/", ("Sites", "Paris"))])
def test_a_group_path(text: str, path: tuple[str, ...]) -> None:
    assert names.group_path(text) == path
    assert names.group_path(names.show_group(path)) == path


@pytest.mark.parametrize("text", ["a//b", "//a", "a//", "//", "a/ b", "a/\x1b", "a/-b", "..", "../x", "a/./b"])
def test_a_group_path_of_improper_names_is_refused(text: str) -> None:
    assert refuses(names.group_path, text)


def test_a_fingerprint_forgives_how_people_write_it() -> None:
    plain = "0123456789abcdef" * 4
    colons = ":".join(plain[i : i + 2] for i in range(0, 64, 2)).upper()
    assert names.fingerprint(plain) == names.fingerprint(colons) == names.fingerprint(f" {plain[:32]} {plain[32:]}\n") == plain


@pytest.mark.parametrize("text", ["", "0" * 63, "0" * 65, "g" * 64, "٠" * 64, "0x" + "0" * 62])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    assert refuses(names.fingerprint, text)


def test_ids_are_ten_characters_that_cannot_be_confused() -> None:
    made = [names.new_id(random.Random(seed).randbytes) for seed in range(50)]
    assert len(set(made)) == 50
    assert all(names.is_id(id) and not set("0189") & set(id) for id in made)
    assert not any(
        names.is_id(text) for text in ("", "abcdefghi", "abcdefghijk", "ABCDEFGHIJ", "abcdefghi\n", "abcdefgh/i", "abcdefgh10")
    )


def test_resource_names() -> None:
    name = names.resource("accounts", "acme.example", "servers", "abcdefghij")
    assert name == "accounts/acme.example/servers/abcdefghij"
    assert names.parse_resource(name, "accounts", "servers") == ("acme.example", "abcdefghij")


@pytest.mark.parametrize(
    "name", ["", "accounts", "accounts/", "accounts/a/servers", "accounts/a/apiKeys/b", "/accounts/a", "accounts/a/servers/b/x/y"]
)
def test_a_resource_name_of_another_form_is_refused(name: str) -> None:
    assert refuses(lambda text: names.parse_resource(text, "accounts", "servers"), name)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("primary.example", "primary.example", 13299),
        (" primary.example:443 ", "primary.example", 443),
        ("host_1", "host_1", 13299),
        ("Primary.EXAMPLE", "primary.example", 13299),
        ("primary.example.", "primary.example", 13299),
        ("primary.example.:443", "primary.example", 443),
        ("bücher.example", "xn--bcher-kva.example", 13299),
        ("BÜCHER.example.:443", "xn--bcher-kva.example", 443),
        ("bu\u0308cher.example", "xn--bcher-kva.example", 13299),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", 13299),
        ("東京.example", "xn--1lqs71d.example", 13299),
        ("10.0.0.3", "10.0.0.3", 13299),
        ("10.0.0.3:65535", "10.0.0.3", 65535),
        ("::1", "::1", 13299),
        ("[::1]", "::1", 13299),
        ("[2001:DB8::1]:1", "2001:db8::1", 1),
        ("fe80::1%eth0", "fe80::1%eth0", 13299),
    ],
)
def test_an_address(text: str, host: str, port: int) -> None:
    assert names.address(text) == Address(host, port)
    assert names.address(str(names.address(text))) == Address(host, port)
    assert names.address(Address(host, port).shown()) == Address(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "a:",
        "a:0",
        "a:65536",
        "a:port",
        "a:１３",
        "a:1:2",
        "a b",
        "a\0b",
        "../etc",
        "a/b",
        "https://a",
        "10.0.0.300",
        "1.2.3",
        "user@a",
        "[a]:1",
        "[::1",
        "[]",
        "[::1]x",
        "a..b",
        "a..",
        ".",
        "10.0.0.3.",
        "-a",
        "a" * 254,
        "fe80::1%\x1b[31m",
        "fe80::1%a b",
        "::1\n::2",
        "\u2066x\u2069",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """Attacks rows 5, 35 and 41."""
    assert refuses(names.address, text)


def test_an_ipv6_address_with_a_port_and_no_brackets_is_met_with_a_hint() -> None:
    with pytest.raises(Refused, match=r"in brackets, such as \[2001:db8::1\]:13299"):
        names.address("2001:db8::7:132990")


@pytest.mark.parametrize(
    "text",
    ["straße.example", "σας.example", "a\u200cb.example", "ｅxample", "１.２.３.４", "a\u00ad.example", "acme。example"],
)
def test_a_name_that_idna_versions_write_differently_is_refused(text: str) -> None:
    """IDNA 2003 maps these to another name; so might somebody who wants a near miss to pass (attacks row 5)."""
    with pytest.raises(Refused, match="xn--"):
        names.host(text)


@given(st.text())
def test_every_host_is_plain_ascii_without_a_slash(text: str) -> None:
    if not refuses(names.host, text):
        host = names.host(text)
        assert host.isascii()
        assert host.isprintable()
        assert not set(host) & set("/\\ '\"$;")


@given(st.text(alphabet="aBz0-_.üÜßé東\u0308", max_size=20))
def test_the_form_of_a_host_is_its_own_form(text: str) -> None:
    if not refuses(names.host, text):
        assert names.host(names.host(text)) == names.host(text)
