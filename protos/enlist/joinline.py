"""The join line: everything a server needs to enrol already trusted, in one line to paste.

`enlist://primary.example:13299/acme.example?primary=<fingerprint>&api-key=<API key>`
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from enlist import names
from enlist.reasons import Reason, Refused

_LIMIT = 1000


@dataclass(frozen=True)
class JoinLine:
    """Where to join, as what, whom to trust there, and the API key. The API key is a secret, so it is not in the repr."""

    address: names.Address
    account: str
    primary_fingerprint: str
    api_key: str

    def __repr__(self) -> str:
        return f"JoinLine(address={self.address!s}, account={self.account!r})"

    def __str__(self) -> str:
        query = urlencode({"primary": self.primary_fingerprint, "api-key": self.api_key})
        return f"enlist://{self.address}/{quote(self.account)}?{query}"


def parse(text: str) -> JoinLine:
    """Reads a join line, or a file that holds one: empty lines and lines beginning with `#` are passed over."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if len(lines) != 1 or len(lines[0]) > _LIMIT or not names.printable(lines[0]):
        raise _refuse("One join line was expected.")
    try:
        parts = urlsplit(lines[0])
        fields = parse_qs(parts.query, strict_parsing=True, max_num_fields=4)
    except ValueError as error:
        raise _refuse("A join line begins with enlist:// and has been cut or altered here.") from error
    if parts.scheme != "enlist" or fields.keys() != {"primary", "api-key"} or any(len(v) > 1 for v in fields.values()):
        raise _refuse("A join line begins with enlist:// and holds the primary's fingerprint and an API key.")
    return JoinLine(
        address=names.address(parts.netloc),
        account=names.account_domain(parts.path.removeprefix("/")),
        primary_fingerprint=names.fingerprint(fields["primary"][0]),
        api_key=fields["api-key"][0],
    )


def _refuse(message: str) -> Refused:
    return Refused(Reason.INVALID_ARGUMENT, f"{message} Ask for it again, and copy the whole line.")
