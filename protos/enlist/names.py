"""The forms of names, addresses and ids: what both ends accept, and nothing near it.

Every function here takes what somebody typed or sent and either returns it unchanged (or in its one normal form) or raises
`Refused(INVALID_ARGUMENT)` with a sentence for that somebody.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

from enlist.reasons import Reason, Refused

API_PORT = 13299
SSL_PORT = 13000
NAME_LIMIT = 63
PRIMARY_ID_LENGTH = 64
"""Characters of a primary id, as of every fingerprint."""
ROOT_GROUP = "/"
GROUP_DEPTH = 16
"""Groups on the way from the root group down, at most: a path is for people, and is put together for every row that shows it."""

_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"  # RFC 4648 base32, lower case: nothing to confuse on the telephone
_ID = re.compile(r"[a-z2-7]{10}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HOST_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_ZONED = re.compile(
    r"[^%]*(%[A-Za-z0-9._-]{1,15})?"
)  # an IPv6 zone (RFC 4007) is an interface's name, and nothing a terminal obeys
_KIND = re.compile(r"[a-z][a-z0-9-]{0,31}")
_WORD = re.compile(r"[a-z0-9]([a-z0-9._=-]{0,61}[a-z0-9])?")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
# Cc controls, Cf formats (bidi overrides among them), Cs surrogates, Co private use, Cn unassigned, Zl and Zp line ends
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def _refuse(message: str) -> Refused:
    return Refused(Reason.INVALID_ARGUMENT, message)


def account_domain(text: str) -> str:
    """An account's domain: a DNS name (RFC 1123) in lower case without a dot at the end. It is never looked up."""
    labels = text.split(".")
    if len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit():
        return text
    lower = text.strip().rstrip(".").lower()
    hint = f' Did you mean "{lower}"?' if lower != text and all(_LABEL.fullmatch(x) for x in lower.split(".")) else ""
    raise _refuse(f'An account domain is a DNS name in lower case, such as "acme.example".{hint}')


def display_name(text: str) -> str:
    """A name for people: 1 to 63 printable characters in Unicode's NFC form, no slash, not beginning like a flag, no `..`."""
    if not text or len(text) > NAME_LIMIT:
        raise _refuse(f"A name has 1 to {NAME_LIMIT} characters.")
    if text != text.strip() or text.startswith("-") or "/" in text:
        raise _refuse("A name has no slash, does not begin with a hyphen, and has no space at either end.")
    if not text.strip("."):
        raise _refuse("A name is more than dots.")
    if not printable(text):
        raise _refuse("A name holds printable characters only, in Unicode's NFC form.")
    return text


def note(text: str, what: str, limit: int = 200) -> str:
    """A line of text for people, such as a contact or a reason; may be empty."""
    if len(text) > limit or not printable(text):
        raise _refuse(f"The {what} is one line of at most {limit} printable characters.")
    return text


def printable(text: str) -> bool:
    """Whether every character shows as itself: no controls, no bidi overrides, no line ends, and NFC."""
    return unicodedata.is_normalized("NFC", text) and not any(unicodedata.category(c) in _UNPRINTABLE for c in text)


def group_path(text: str) -> tuple[str, ...]:
    """The names on the way from the root group down; the root group itself, `/`, has none."""
    if "//" in text:
        raise _refuse("A group's path has a name between any two slashes, such as Sites/Paris.")
    inner = text.strip("/")
    if inner.count("/") >= GROUP_DEPTH:
        raise _refuse(f"A group stands at most {GROUP_DEPTH} levels deep.")
    return tuple(display_name(part) for part in inner.split("/")) if inner else ()


def show_group(path: tuple[str, ...]) -> str:
    """A group's path as people write it."""
    return "/".join(path) or ROOT_GROUP


def kind(text: str) -> str:
    """The kind of a policy or a task: at most 32 lower-case letters, digits and hyphens, beginning with a letter."""
    if not _KIND.fullmatch(text):
        raise _refuse('A kind is a word of at most 32 lower-case letters, digits and hyphens, such as "chrony".')
    return text


def is_document_kind(text: str) -> bool:
    """Whether this is `policy/` or `task/` and a kind."""
    purpose, _, word = text.partition("/")
    return purpose in ("policy", "task") and _KIND.fullmatch(word) is not None


def label(text: str) -> str:
    """A word to choose servers by: at most 63 lower-case letters and digits, with `.`, `_`, `-` and `=` between them."""
    if not _WORD.fullmatch(text):
        raise _refuse('A label is a word of lower-case letters and digits, such as "printer" or "site=paris".')
    return text


def fingerprint(text: str) -> str:
    """A fingerprint in its one form, 64 lower-case hex digits; colons, spaces and capitals are forgiven."""
    hexadecimal = re.sub(r"[\s:]", "", text).lower()
    if not _FINGERPRINT.fullmatch(hexadecimal):
        raise _refuse("A fingerprint is 64 hexadecimal digits (SHA-256).")
    return hexadecimal


def new_id(random_bytes: Callable[[int], bytes]) -> str:
    """A fresh id: ten characters, 50 random bits. `random_bytes` is `secrets.token_bytes` or a test's."""
    return "".join(_ID_ALPHABET[byte & 31] for byte in random_bytes(10))


def is_id(text: str) -> bool:
    """Whether the text has the form of an id."""
    return _ID.fullmatch(text) is not None


def resource(*parts: str) -> str:
    """A resource name (AIP-122): `resource("accounts", domain, "servers", id)`."""
    return "/".join(parts)


def parse_resource(name: str, *collections: str) -> tuple[str, ...]:
    """The ids in a resource name whose collections are these; a name of another form is refused.

    `parse_resource("accounts/acme.example/servers/abc", "accounts", "servers")` is `("acme.example", "abc")`.
    """
    parts = name.split("/")
    if parts[0::2] != list(collections) or len(parts) != 2 * len(collections) or not all(parts[1::2]):
        wanted = "/".join(f"{collection}/..." for collection in collections)
        raise _refuse(f'A resource name of the form "{wanted}" was expected.')
    return tuple(parts[1::2])


class Address(NamedTuple):
    """Where a port is dialled: a DNS name or an IP address, and the port number."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def shown(self, implied: int = API_PORT) -> str:
        """As a person types it: the port is left out where it is the implied one."""
        return self.host if self.port == implied else str(self)


def address(text: str, implied: int = API_PORT) -> Address:
    """Reads `HOST`, `HOST:PORT`, an IPv6 address, or `[IPv6]:PORT`; the host comes out as `host` writes it."""
    text = text.strip()
    if "://" in text:
        raise _refuse('The address is a name or an IP address without "://", such as "primary.example".')
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(.*))?", text)
    if bracketed:
        host, port = bracketed.groups()
    elif text.count(":") > 1:
        host, port = _ipv6(text), None
    else:
        host, _, port = text.partition(":")
        port = port if ":" in text else None
    return Address(_host(host, ip_only=bool(bracketed)), implied if port is None else _port(port))


def _ipv6(text: str) -> str:
    try:
        return _host(text, ip_only=True)
    except Refused:
        raise _refuse("An IPv6 address with a port stands in brackets, such as [2001:db8::1]:13299.") from None


def host(text: str) -> str:
    """A DNS name or an IP address without a port, in its one form: a name in lower case, as A-labels, without a dot at the end."""
    return _host(text, ip_only=False)


def _host(text: str, ip_only: bool) -> str:
    try:
        if _ZONED.fullmatch(text):
            return str(ipaddress.ip_address(text))
    except ValueError:
        if not ip_only:
            return _dns_name(text)
    raise _no_host()


def _no_host() -> Refused:
    return _refuse("The address is a DNS name or an IP address, with a port behind a colon if need be.")


def _dns_name(text: str) -> str:
    name = _ascii(text.removesuffix(".")).lower()
    labels = name.split(".")
    if len(name) <= 253 and all(map(_HOST_LABEL.fullmatch, labels)) and not labels[-1].isdigit():
        return name  # and 10.0.0.300 is a mistyped IP address, not a name
    raise _no_host()


def _ascii(name: str) -> str:
    """An internationalised name as the DNS holds it (RFC 3490, ToASCII).

    Refused where IDNA 2003, which the standard library knows, would change more than capitals: there IDNA 2008 (RFC 5891) may lead
    to another name. So is what only looks like a plain name (ADR 10).
    """
    if name.isascii():
        return name
    try:
        encoded = name[:253].encode("idna")
        unchanged = encoded.decode("idna") == unicodedata.normalize("NFC", name.lower())
    except UnicodeError:
        raise _no_host() from None
    if not unchanged:
        raise _refuse('The name holds letters that the DNS would change. Give it in the form that begins with "xn--".')
    if not name.isprintable():  # of a newer Unicode than IDNA 2003 knows, such as marks that turn the direction of text
        raise _no_host()
    return encoded.decode("ascii")


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536:
        return int(text)
    raise _refuse("A port is a number from 1 to 65535.")
