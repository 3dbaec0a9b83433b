"""`join`: the list that is read, the files that are written, and that neither leads anywhere else."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.v1.server_pb2 import Server
from enlist.v1.trust_pb2 import Invitation, InviteServersRequest, InviteServersResponse, WithdrawServerRequest
from enlist_primary.cli.join import file_name, read_csv
from tests.primary.cli.conftest import Run
from tests.primary.cli.fake import SHOWN, Answer, FakePrimary, moment, server
from tests.primary.refusals import attempt, refused


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Where the test's CSV will stand."""
    return tmp_path / "servers.csv"


GOOD = {
    "names alone": ("a\nb\n", [("a", "/"), ("b", "/")]),
    "groups": ("a,Sites/Paris\nb,/\nc,\n", [("a", "Sites/Paris"), ("b", "/"), ("c", "/")]),
    "a header": ("Name,Group\na,x\n", [("a", "x")]),
    "a header of one": ("name\na\n", [("a", "/")]),
    "a byte order mark": ("\ufeffname,group\na,x\n", [("a", "x")]),
    "no line end": ("a,x", [("a", "x")]),
    "Windows' line ends": ("a,x\r\nb,y\r\n", [("a", "x"), ("b", "y")]),
    "empty lines": ("\na\n\n,\n  , \nb\n", [("a", "/"), ("b", "/")]),
    "spaces around": ("  a , Sites/Paris \n", [("a", "Sites/Paris")]),
    "quotes": ('"a, b","Sites, all"\n', [("a, b", "Sites, all")]),
    "Unicode": ("Zürich,Größe\n打印机\n", [("Zürich", "Größe"), ("打印机", "/")]),
    "slashes around a group": ("a,/Sites/Paris/\n", [("a", "Sites/Paris")]),
    "one name twice": ("a\na\n", [("a", "/"), ("a", "/")]),
    "a semicolon in a name": ("a;x\nb\n", [("a;x", "/"), ("b", "/")]),
    "name as a name": ("a\nname\n", [("a", "/"), ("name", "/")]),
    "nothing": ("", []),
    "nothing but line ends": ("\n\n", []),
    "what a spreadsheet would run": ("=1+1,@SUM(A1)\n", [("=1+1", "@SUM(A1)")]),
}


@pytest.mark.parametrize("what", GOOD)
def test_a_list_is_read(table: Path, what: str) -> None:
    text, rows = GOOD[what]
    table.write_bytes(text.encode())
    assert read_csv(table) == rows


BAD = {
    "a third column": ("a,x\nb,y,z\n", 2),
    "a name with a slash": ("../../etc/passwd\n", 1),
    "an absolute name": ("/etc/passwd\n", 1),
    "a NUL": ("ok\na\x00b\n", 2),
    "an escape": ("\x1b[2J\n", 1),
    "a bidi override": ("ok\nok\n\u202eevil\n", 3),
    "a flag": ("--help\n", 1),
    "a group with a flag": ("a,-x\n", 1),
    "a group with an empty name": ("a,x//y\n", 1),
    "a long name": ("x" * 64, 1),
    "a group without a name": (",Sites\n", 1),
    "a line end in a name": ('ok\n"Pa\nris",x\n', 3),
    "another kind of line end in a name": ("ok\none\u2028two\n", 2),
    "a form feed in a name": ("ok\none\x0ctwo\n", 2),
    "semicolons": ("name;group\na;x\n", 1),
    "a header of other columns": ("name,place\na,x\n", 1),
    "a header twice the same": ("name,name\na,x\n", 1),
    "a quote that is never closed": ('ok\n"Paris,x\n', 2),
    "text after a quote": ('"a"b,x\n', 1),
    "a group upward": ("a,../x\n", 1),
    "not Unicode's NFC": ("e\u0301\n", 1),
}


@pytest.mark.parametrize("what", BAD)
def test_a_list_with_one_bad_line_is_refused_as_a_whole_naming_the_line(table: Path, what: str) -> None:
    """Attacks row 35."""
    text, line = BAD[what]
    table.write_bytes(text.encode())
    with refused(Reason.INVALID_ARGUMENT) as no:
        read_csv(table)
    assert f"line {line}: " in no.value.message


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"a\x80", b'"' + b"x" * 200_000 + b'"'], ids=["UTF-16", "Latin-1", "huge"])
def test_what_is_no_list_is_refused(table: Path, data: bytes) -> None:
    table.write_bytes(data)
    with refused(Reason.INVALID_ARGUMENT):
        read_csv(table)


def test_a_list_that_is_not_there_is_refused(table: Path) -> None:
    with refused(Reason.INVALID_ARGUMENT) as no:
        read_csv(table)
    assert str(table) in no.value.message


def test_a_link_planted_for_the_list_is_not_followed(table: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret\n")
    table.symlink_to(tmp_path / "secret")
    with refused(Reason.FILE_UNSAFE) as no:
        read_csv(table)
    assert "secret" not in no.value.message.replace(str(tmp_path), "")


def test_a_folder_is_no_list(tmp_path: Path) -> None:
    outcome = attempt(read_csv, tmp_path)
    assert isinstance(outcome, Refused)


@given(st.text(max_size=200))
def test_no_text_does_more_than_be_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    table = tmp_path_factory.getbasetemp() / "any.csv"
    table.write_bytes(text.encode("utf-8", "surrogatepass"))
    outcome = attempt(read_csv, table)
    if isinstance(outcome, Refused):
        assert outcome.reason is Reason.INVALID_ARGUMENT
    else:
        assert all(name and "/" not in name and "\n" not in name for name, _ in outcome)


# --- The name of a join file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("paris-1", "paris-1-aaaaaaaaaa.join"),
        ("Zürich 1", "z-rich-1-aaaaaaaaaa.join"),
        ("打印机", "aaaaaaaaaa.join"),
        ("", "aaaaaaaaaa.join"),
        ("..", "aaaaaaaaaa.join"),
        ("../../etc/cron.d/x", "etc-cron-d-x-aaaaaaaaaa.join"),
        ("/etc/passwd", "etc-passwd-aaaaaaaaaa.join"),
        (".bashrc", "bashrc-aaaaaaaaaa.join"),
        ("a\x00b", "a-b-aaaaaaaaaa.join"),
        ("a\nb", "a-b-aaaaaaaaaa.join"),
        ("$(rm -rf ~); `id`", "rm-rf-id-aaaaaaaaaa.join"),
        ("C:\\x", "c-x-aaaaaaaaaa.join"),
        ("con", "con-aaaaaaaaaa.join"),
    ],
)
def test_a_join_file_s_name_is_made_of_plain_letters(name: str, file: str) -> None:
    """Attacks row 35: input never names a file."""
    assert file_name(name, "aaaaaaaaaa") == file


@given(st.text(max_size=70))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    file = file_name(name, "aaaaaaaaaa")
    assert re.fullmatch(r"([a-z0-9][a-z0-9-]*-)?aaaaaaaaaa\.join", file)
    assert (Path("/folder") / file).parent == Path("/folder")
    assert len(file.encode()) < 255


def test_servers_of_one_name_get_files_of_their_own() -> None:
    assert file_name("x", "aaaaaaaaaa") != file_name("x", "bbbbbbbbbb")


# --- The command ----------------------------------------------------------------------------------------------------------------

IDS = [letter * 10 for letter in "abcdefgh"]


def inviting(**answers: Answer) -> FakePrimary:
    def invite(request: InviteServersRequest) -> InviteServersResponse:
        return InviteServersResponse(
            invitations=[
                Invitation(
                    server=server(id, each.display_name, "invited", group=each.group or "/", expire_time=moment()),
                    join_line=f"enlist://main.example/acme.example?secret-of-{id}",
                )
                for id, each in zip(IDS, request.invitees, strict=False)
            ]
        )

    return FakePrimary(**{"InviteServers": invite, "WithdrawServer": Server(), **answers})


def test_the_join_line_stands_alone_on_the_last_line(run: Run) -> None:
    primary = inviting()
    ran = run("join", "acme.example", "--name", "paris-1", "--group", "Sites/Paris", primary=primary)
    assert ran.status == 0
    *before, last = ran.out.splitlines()
    assert last == "enlist://main.example/acme.example?secret-of-aaaaaaaaaa"
    assert "secret" not in "\n".join(before)
    assert SHOWN in "\n".join(before)
    [(_, request)] = primary.asked
    assert isinstance(request, InviteServersRequest)
    assert (request.parent, [(each.display_name, each.group) for each in request.invitees]) == (
        "accounts/acme.example",
        [("paris-1", "Sites/Paris")],
    )


def test_one_invitation_as_json(run: Run) -> None:
    printed = json.loads(run("join", "acme.example", "--json", primary=inviting()).out)
    assert printed == {
        "id": "aaaaaaaaaa",
        "name": None,
        "group": "/",
        "expires": SHOWN,
        "join_line": "enlist://main.example/acme.example?secret-of-aaaaaaaaaa",
    }


@pytest.mark.parametrize("as_json", [False, True])
def test_a_list_becomes_a_folder_of_files_that_only_the_owner_reads(run: Run, table: Path, tmp_path: Path, as_json: bool) -> None:
    table.write_text("name,group\nparis-1,Sites/Paris\nparis-1\nRome 2,Sites/Rome\n")
    out = tmp_path / "out"
    old = os.umask(0)
    try:
        flags = ["--json"] * as_json
        ran = run("join", "acme.example", "--from", str(table), "--out", str(out), *flags, primary=inviting())
    finally:
        os.umask(old)
    assert ran.status == 0
    made = sorted(out.iterdir())
    assert [file.name for file in made] == ["paris-1-aaaaaaaaaa.join", "paris-1-bbbbbbbbbb.join", "rome-2-cccccccccc.join"]
    assert [file.stat().st_mode & 0o777 for file in (out, *made)] == [0o700, 0o600, 0o600, 0o600]
    assert [file.read_text() for file in made] == [f"enlist://main.example/acme.example?secret-of-{id}\n" for id in IDS[:3]]
    assert "secret-of" not in ran.out
    if as_json:
        printed = json.loads(ran.out)
        assert [set(each) for each in printed] == [{"id", "name", "group", "expires", "file"}] * 3
        assert [each["file"] for each in printed] == [str(file) for file in made]
    else:
        assert "3 servers are invited" in ran.out


def test_where_one_file_cannot_be_written_nobody_is_invited_and_no_file_is_left(
    run: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.write_text("a\nb\nc\n")
    out, primary, real = tmp_path / "out", inviting(), files.write

    def write(path: Path, data: bytes, mode: int = 0o600) -> None:
        if path.name.startswith("b-"):
            raise Refused(Reason.STORAGE_FULL, "The disk is full.")
        real(path, data, mode)

    monkeypatch.setattr(files, "write", write)
    ran = run("join", "acme.example", "--from", str(table), "--out", str(out), primary=primary)
    assert (ran.status, ran.err) == (1, "STORAGE_FULL: The disk is full. Nobody is invited.\n")
    assert list(out.iterdir()) == []
    withdrawn = [request.name for name, request in primary.asked if isinstance(request, WithdrawServerRequest)]
    assert withdrawn == [f"accounts/acme.example/servers/{id}" for id in IDS[:3]]


def test_invitations_that_cannot_be_taken_back_either_are_said_to_stay(
    run: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.write_text("a\n")

    def full(*_: object, **__: object) -> None:
        raise Refused(Reason.STORAGE_FULL, "The disk is full.")

    def gone(_: object) -> Server:
        raise Refused(Reason.NOT_RUNNING, "No primary is running.")

    primary = inviting(WithdrawServer=gone)
    monkeypatch.setattr(files, "write", full)
    ran = run("join", "acme.example", "--from", str(table), "--out", str(tmp_path / "out"), primary=primary)
    assert ran.status == 1
    assert "STORAGE_FULL: The disk is full. What was invited stays" in ran.err
    assert "No primary is running." in ran.err


def test_a_list_of_nobody_is_refused_and_leaves_no_folder(run: Run, table: Path, tmp_path: Path) -> None:
    table.write_text("name,group\n")
    ran = run("join", "acme.example", "--from", str(table), "--out", str(tmp_path / "out"), primary=inviting())
    assert (ran.status, ran.err) == (1, f"INVALID_ARGUMENT: {table} names no server.\n")
    assert not (tmp_path / "out").exists()


def test_nobody_is_invited_if_one_line_is_bad(run: Run, table: Path, tmp_path: Path) -> None:
    table.write_text("a\n../b\n")
    primary = inviting()
    ran = run("join", "acme.example", "--from", str(table), "--out", str(tmp_path / "out"), primary=primary)
    assert (ran.status, primary.asked) == (1, [])
    assert "line 2" in ran.err
    assert not (tmp_path / "out").exists()


def test_nobody_is_invited_if_the_folder_is_in_use(run: Run, table: Path, tmp_path: Path) -> None:
    """Else join lines would be lost, or files of somebody else overwritten."""
    table.write_text("a\n")
    out = tmp_path / "out"
    out.mkdir()
    (out / "other").write_text("mine")
    primary = inviting()
    ran = run("join", "acme.example", "--from", str(table), "--out", str(out), primary=primary)
    assert (ran.status, primary.asked) == (1, [])
    assert ran.err.startswith("FOLDER_IN_USE: ")
    assert (out / "other").read_text() == "mine"


def test_nobody_is_invited_if_the_folder_is_a_planted_link(run: Run, table: Path, tmp_path: Path) -> None:
    """Attacks rows 35 and 45."""
    table.write_text("a\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    primary = inviting()
    ran = run("join", "acme.example", "--from", str(table), "--out", str(tmp_path / "out"), primary=primary)
    assert (ran.status, primary.asked) == (1, [])
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_for_join_files_that_is_refused_stays_as_it_was(run: Run, table: Path, tmp_path: Path) -> None:
    table.write_text("a\n")
    folder = tmp_path / "occupied"
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "letters").write_text("mine")
    ran = run("join", "acme.example", "--from", str(table), "--out", str(folder), primary=inviting())
    assert ran.err.startswith("FOLDER_IN_USE: ")
    assert folder.stat().st_mode & 0o777 == 0o755
