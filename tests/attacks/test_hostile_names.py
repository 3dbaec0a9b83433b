"""Attacks row 41, terminal: HTML, ANSI, bidi and line ends in names and alarms reach no terminal, and forge no line in a log."""

from __future__ import annotations

import asyncio
import logging
import re
import unicodedata
from collections.abc import AsyncIterator

import pytest

from enlist.reasons import Reason
from enlist.runtime.logs import LineFormatter
from enlist.v1 import account_pb2, hierarchy_pb2, registration_pb2, trust_pb2
from enlist_primary.cli.main import main
from enlist_primary.model.users import Actor
from enlist_primary.operations.journalling import record
from enlist_primary.store.database import Transaction
from tests.attacks.world import World, populated, server_name
from tests.support.inprocess import ACCOUNT, Asker, refused_by
from tests.support.links import linked
from tests.support.waiting import eventually

HOSTILE = [
    *("\x1b[2J\x1b[31mtrusted", "\x1b]0;title\x07", "\x1b]8;;http://evil.example\x1b\\x", "\x9b31m", "\x1b[1A\x1b[2K"),
    *("web1\ntrusted  yes", "web1\r\x1b[Ktrusted", "tab\tbed", "bell\a", "back\b\b\bspace", "nul\0", "\x7f"),
    *("\u202egpj.exe", "\u2066x\u2069", "\u200bx", "\u200f", "\ufeff", "x\u2028y", "x\u2029y", "\U000e0041", "\ue000", "\u0085"),
]
FORGING = 'x" level=critical event="forged'


def visible(text: str) -> bool:
    """Whether a terminal shows every character as itself, and nothing else happens."""
    return not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for c in text.replace("\n", ""))


# --- What is refused at the door -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE)
async def test_nothing_that_a_stranger_says_of_itself_may_hold_it(world: World, text: str) -> None:
    before, asker = await world.tables(), world.asker()
    for field in ("display_name", "server_address", "version"):
        fields = {"display_name": "plain", "server_address": "plain.example", "version": "1", field: text}
        registration = registration_pb2.Registration(account_domain=ACCOUNT, public_key=asker.public_key)
        for name, value in fields.items():
            setattr(registration, name, value)
        signed = registration.SerializeToString()
        async with world.running.stranger() as stub:
            proof = await asker.proof(stub, "Register", signed)
            request = registration_pb2.RegisterRequest(registration=signed, proof=proof)
            refused = await refused_by(stub.registration.Register(request))
        assert refused.reason is Reason.INVALID_ARGUMENT, field
        assert visible(refused.message)
    assert await world.tables() == before


@pytest.mark.parametrize("text", HOSTILE)
async def test_nothing_that_an_administrator_says_may_hold_it(world: World, text: str) -> None:
    """It is told to servers, and to other administrators."""
    admin, victim, account = world.running.admin, server_name(world.victim_id), f"accounts/{ACCOUNT}"
    before = await world.tables()
    restricted = account_pb2.API_KEY_KIND_RESTRICTED
    for call in (
        admin.accounts.UpdateAccount(account_pb2.UpdateAccountRequest(name=account, contact=text)),
        admin.accounts.CreateApiKey(account_pb2.CreateApiKeyRequest(parent=account, kind=restricted, group=text)),
        admin.accounts.CreateApiKey(account_pb2.CreateApiKeyRequest(parent=account, kind=restricted, networks=[text])),
        admin.hierarchy.RenameServer(hierarchy_pb2.RenameServerRequest(name=victim, display_name=text)),
        admin.trust.SuspendServer(trust_pb2.SuspendServerRequest(name=victim, reason=text)),
        admin.trust.InviteServers(trust_pb2.InviteServersRequest(parent=account, invitees=[trust_pb2.Invitee(display_name=text)])),
    ):
        assert (await refused_by(call)).reason is Reason.INVALID_ARGUMENT
    assert await world.tables() == before


# --- What is shown of what got in all the same ---------------------------------------------------------------------------------


def plant(tx: Transaction, id: str, text: str) -> None:
    """Writes it wherever a database of another make could hold it."""
    sql = "UPDATE server SET name = $2, server_address = $2, version = $2, reason = $2, source = $2, asked_with = $2 WHERE id = $1"
    tx.run(sql, id, text)
    tx.run("UPDATE account SET contact = $1 WHERE domain = $2", text, ACCOUNT)
    root = tx.row("SELECT id FROM server_group WHERE parent IS NULL AND account = $1", ACCOUNT)
    assert root is not None
    group = "INSERT INTO server_group (account, id, parent, name) VALUES ($1, $2, $3, $4)"
    tx.run(group, ACCOUNT, f"group-{id}", root["id"], text)
    counter = "INSERT INTO counter (account, name, count, last_at, last_source) VALUES ($1, $2, 1, 1, $3)"
    tx.run(counter, ACCOUNT, f"R{id}", text)
    record(tx, ACCOUNT, "server.rename", f"servers/{id}", Actor(text, text, text), 1, text, name=text)


def alarms_of(world: World) -> list[str]:
    """The addresses in the alarms that were logged."""
    return [record.fields["address"] for record in world.records.records if record.levelno == logging.CRITICAL]  # type: ignore[attr-defined]  # Log adds it


async def say(world: World, asker: Asker, text: str, alarms: int = 1) -> None:
    """A trusted server opens a link, and says it in every field it has."""
    before = len(alarms_of(world))
    alarm = hierarchy_pb2.IdentityAlarm(address=text, fingerprint=text)
    async with linked(asker, version=text, server_address=text, identity_alarms=[alarm] * alarms):
        await eventually(lambda: len(alarms_of(world)) > before, what="the alarm")


@pytest.fixture(scope="module")
async def planted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A primary whose database, and one of whose trusted servers, are full of it."""
    async with populated(tmp_path_factory.mktemp("planted")) as world:
        for text in [*HOSTILE, FORGING]:
            _, id = await world.pending()
            await world.running.primary.context.database.write(ACCOUNT, plant, id, text)
        asker, _ = await world.trusted("talker")
        for text in [*HOSTILE, FORGING]:
            await say(world, asker, text)
        yield world
        await world.assert_unharmed()
        world.assert_nothing_leaked()


COMMANDS = [
    *(["account", "list"], ["account", "show", ACCOUNT], ["api-key", "list", ACCOUNT], ["status"], ["tree"], ["tree", ACCOUNT]),
    *(["server", "list"], ["server", "list", ACCOUNT], ["server", "show", "talker"], ["server", "show", "\x1b[2Jnobody"]),
    *(["server", "show", FORGING], ["server", "authorize", "\u202enobody"], ["journal", "show"], ["journal", "show", ACCOUNT]),
    *(["journal", "verify"], ["account", "show", "\x1b[2J"], ["api-key", "revoke", ACCOUNT, "\x1b[2J"]),
]


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: ascii(" ".join(line)))
async def test_no_command_prints_it(planted: World, line: list[str], as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    status = await asyncio.to_thread(main, ["--data", str(planted.running.folder.path), *line, *(["--json"] if as_json else [])])
    out, err = capsys.readouterr()
    assert status in (0, 1)
    assert out or err
    assert visible(out)
    assert visible(err)


async def test_it_is_there_to_be_shown(planted: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Else the test above could not fail."""
    assert {row["name"] for row in (await planted.tables())["server"]} >= {*HOSTILE, FORGING}
    assert await asyncio.to_thread(main, ["--data", str(planted.running.folder.path), "server", "list"]) == 0
    assert "\\x1b[2J\\x1b[31mtrusted" in capsys.readouterr().out


async def test_a_row_of_the_list_is_a_line_whatever_the_server_is_called(
    planted: World, capsys: pytest.CaptureFixture[str]
) -> None:
    await asyncio.to_thread(main, ["--data", str(planted.running.folder.path), "server", "list", ACCOUNT])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(await planted.servers())


# --- Logs ----------------------------------------------------------------------------------------------------------------------


def lines_of(records: list[logging.LogRecord]) -> list[str]:
    """The log as it is written."""
    return [LineFormatter().format(record) for record in records]


async def test_no_line_of_the_log_holds_it_and_every_event_is_one_line(planted: World) -> None:
    lines = lines_of(planted.records.records)
    assert len([line for line in lines if " met a strange authority " in line]) == len(HOSTILE) + 1
    assert all(visible(line) and "\n" not in line for line in lines)


async def test_no_name_or_address_forges_a_field_of_the_log(planted: World) -> None:
    """What reads like fields stands within the quotes of the one field it belongs to."""
    lines = [line for line in lines_of(planted.records.records) if "forged" in line]
    assert lines
    for line in lines:
        assert "level=" not in re.sub(r'"(?:[^"\\]|\\.)*"', "", line)


async def test_an_alarm_is_an_alarm_and_is_counted(planted: World) -> None:
    """The administrator hears of it; its words are the server's."""
    assert alarms_of(planted) == [text[:300] for text in [*HOSTILE, FORGING]]
    assert await planted.refusals(ACCOUNT, Reason.IDENTITY_CHANGED) == len(HOSTILE) + 1


async def test_of_a_flood_of_alarms_sixteen_a_link_are_heard(world: World) -> None:
    asker, _ = await world.trusted("crier")
    before = len(alarms_of(world)), await world.refusals(ACCOUNT, Reason.IDENTITY_CHANGED)
    await say(world, asker, "x" * 3000, alarms=30)
    assert len(alarms_of(world)) == before[0] + 16
    assert await world.refusals(ACCOUNT, Reason.IDENTITY_CHANGED) == before[1] + 16
    assert max(map(len, alarms_of(world))) <= 300
