"""`join`: invites servers; one join line on the screen, or a file each for a CSV of them."""

from __future__ import annotations

import argparse
import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enlist.reasons import Reason, Refused
from enlist_primary.cli import output
from enlist_primary.cli.arguments import given

if TYPE_CHECKING:
    from enlist.v1.trust_pb2 import Invitation

COLUMNS = ("name", "group")


def add_commands(commands: Any) -> None:
    """Adds the command of this file."""
    join = commands.add_parser("join", help="invite servers; the join line stands alone on the last line")
    join.add_argument("domain", metavar="DOMAIN")
    join.add_argument("--name", default="", help="the name the server shall bear (default: it names itself)")
    group = "its group, made if it is missing (default: the account's landing group)"
    join.add_argument("--group", type=given, metavar="PATH", help=group)
    join.add_argument("--from", dest="csv", type=Path, metavar="CSV", help="invite every line of this file: name,group")
    join.add_argument("--out", type=Path, metavar="FOLDER", help="with --from: where to write one join file per server")
    output.add_json(join)
    join.set_defaults(run=lambda arguments: _join(join, arguments))


def _join(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    if (arguments.csv is None) != (arguments.out is None):
        parser.error("--from and --out go together")
    if arguments.csv is not None and (arguments.name or arguments.group):
        parser.error("--name and --group do not go with --from: the file's columns say them")
    if arguments.csv is None:
        return _one(arguments)
    return _many(arguments)


def _one(arguments: argparse.Namespace) -> int:
    (invitation,) = _invite(arguments, [(arguments.name, arguments.group or "")])
    if arguments.json:
        output.print_json(_as_json(invitation) | {"join_line": invitation.join_line})
        return 0
    expires = output.time_of(invitation.server, "expire_time")
    output.say(f"The join line is good for one server until {expires}, and is shown this once:")
    print(invitation.join_line)
    return 0


def _many(arguments: argparse.Namespace) -> int:
    rows = read_csv(arguments.csv)
    if not rows:
        raise Refused(Reason.INVALID_ARGUMENT, f"{arguments.csv} names no server.")
    _prepare(arguments.out)
    invitations = _invite(arguments, rows)
    try:
        made = [_as_json(each) | {"file": str(_written(arguments.out, each))} for each in invitations]
    except Refused as refused:
        raise Refused(refused.reason, f"{refused.message} {_taken_back(arguments, invitations)}") from None
    if arguments.json:
        output.print_json(made)
    else:
        output.print_table(("NAME", "ID", "FILE"), [(str(m["name"]), str(m["id"]), str(m["file"])) for m in made], "")
        invited = "1 server is" if len(made) == 1 else f"{len(made)} servers are"
        output.say(f"{invited} invited. Each file is a secret, and good for one server.")
    return 0


def _written(folder: Path, invitation: Invitation) -> Path:
    from enlist.runtime import files

    path = _path(folder, invitation)
    files.write(path, f"{invitation.join_line}\n".encode())
    return path


def _path(folder: Path, invitation: Invitation) -> Path:
    return folder / file_name(invitation.server.display_name, invitation.server.id)


def _taken_back(arguments: argparse.Namespace, invitations: list[Invitation]) -> str:
    """What came of taking them back: without its file nobody has a join line, and half a list leaves the rest to be guessed."""
    from enlist.runtime import files
    from enlist.v1 import trust_pb2, trust_pb2_grpc
    from enlist_primary.cli.client import call

    requests = [
        trust_pb2.WithdrawServerRequest(name=each.server.name, reason="its join file could not be written") for each in invitations
    ]

    async def withdraw(channel: Any) -> None:
        for request in requests:
            await trust_pb2_grpc.TrustServiceStub(channel).WithdrawServer(request)

    try:
        call(arguments, withdraw)
        for invitation in invitations:
            files.remove(_path(arguments.out, invitation))
    except Refused as refused:
        return f"What was invited stays, for it could not be taken back either: {refused.message} See: enlist-primary server list"
    return "Nobody is invited."


def _prepare(folder: Path) -> None:
    """The folder for the join files, 0700 and empty, before anybody is invited."""
    from enlist.runtime import files

    if files.entries(folder):
        raise Refused(Reason.FOLDER_IN_USE, f"{folder} is not empty. Name an empty or a new folder.")
    files.make_folder(folder)


def read_csv(path: Path) -> list[tuple[str, str]]:
    """(name, group) of every line; a header line `name,group` may stand first. Refused as a whole, with the line's number."""
    from enlist.runtime import files

    try:
        text = files.read(path).decode("utf-8-sig")
    except FileNotFoundError:
        raise Refused(Reason.INVALID_ARGUMENT, f"There is no file {path}.") from None
    except UnicodeDecodeError:
        raise Refused(Reason.INVALID_ARGUMENT, f"{path} is not UTF-8 text.") from None
    lines_of = io.StringIO(text, newline="")  # line ends of its own: a name that holds another kind is refused, not cut
    reader = csv.reader(lines_of, strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise Refused(Reason.INVALID_ARGUMENT, f"{path}: line {reader.line_num}: This is not CSV: {error}.") from None
    rows = []
    header, lines = _header(path, lines)
    for number, cells in lines:
        try:
            if any(cells):
                rows.append(_row(header, cells))
        except Refused as refused:
            raise Refused(Reason.INVALID_ARGUMENT, f"{path}: line {number}: {refused.message}") from None
    return rows


def _row(header: tuple[str, ...], cells: list[str]) -> tuple[str, str]:
    from enlist import names

    if len(cells) > len(header):
        raise Refused(Reason.INVALID_ARGUMENT, f"Only {' and '.join(header)} were expected.")
    given = dict(zip(header, cells, strict=False))
    if "name" not in given:
        raise Refused(Reason.INVALID_ARGUMENT, "A name was expected.")
    return names.display_name(given["name"]), names.show_group(names.group_path(given.get("group", "")))


def _header(path: Path, lines: list[tuple[int, list[str]]]) -> tuple[tuple[str, ...], list[tuple[int, list[str]]]]:
    """The columns in their order, and the lines below a header, which has a column `name`; without one they are name and group."""
    lines = [(number, [cell.strip() for cell in cells]) for number, cells in lines]
    filled = [cells for _, cells in lines if any(cells)]
    if filled and all(len(cells) == 1 and ";" in cells[0] for cells in filled):
        raise Refused(Reason.INVALID_ARGUMENT, f"{path}: line 1: Columns are separated by commas, not by semicolons.")
    first = tuple(cell.lower() for cell in lines[0][1]) if lines else ()
    if "name" not in first:
        return COLUMNS, lines
    if sorted(first) not in (["name"], sorted(COLUMNS)):
        raise Refused(Reason.INVALID_ARGUMENT, f"{path}: line {lines[0][0]}: The columns are {' and '.join(COLUMNS)}, each once.")
    return first, lines[1:]


def file_name(name: str, id: str) -> str:
    """A join file's name. The server's name only helps to find it: what is not a plain letter or digit is left out."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{plain}-{id}.join" if plain else f"{id}.join"


def _invite(arguments: argparse.Namespace, rows: list[tuple[str, str]]) -> list[Invitation]:
    from enlist.names import resource
    from enlist.v1 import trust_pb2, trust_pb2_grpc
    from enlist_primary.cli.client import call

    request = trust_pb2.InviteServersRequest(
        parent=resource("accounts", arguments.domain),
        invitees=[trust_pb2.Invitee(display_name=name, group=group) for name, group in rows],
    )
    answer = call(arguments, lambda channel: trust_pb2_grpc.TrustServiceStub(channel).InviteServers(request))
    return list(answer.invitations)


def _as_json(invitation: Invitation) -> dict[str, object]:
    server = invitation.server
    expires = output.time_of(server, "expire_time")
    return {"id": server.id, "name": server.display_name or None, "group": server.group, "expires": expires}
