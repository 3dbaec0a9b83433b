"""Attacks row 44: API keys, tokens and private keys, searched for wherever they must not be."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from enlist import joinline
from enlist.reasons import Reason
from enlist.runtime.logs import LineFormatter
from enlist_primary.cli.main import main
from enlist_primary.operations import enrolment
from tests.attacks.world import recorded
from tests.support.inprocess import Asker, refused_by, running_primary
from tests.support.processes import PrimaryProcess, SecondaryProcess, primary_process, run
from tests.support.waiting import wait_for

OWN = {"authority.key", "owner.token"}
"""The files in a primary's data folder that hold a secret because it lives there."""


@dataclass
class Scene:
    """A primary and a secondary that have been through an enrolment, with every secret there was."""

    primary: PrimaryProcess
    secondary: SecondaryProcess
    secrets: dict[str, str]
    said: list[str]

    def search(self, text: str) -> list[str]:
        """The names of the secrets in a text."""
        return [name for name, secret in self.secrets.items() if secret in text]


def secret_of(api_key: str) -> str:
    """The secret part alone."""
    return api_key.strip().rpartition("_")[2]


def private_part(pem: str) -> str:
    """The body of a PEM file, in one piece, without what all keys of this kind begin with."""
    return "".join(pem.split("-----")[2].split())[60:120]


def command(primary: PrimaryProcess, *line: str) -> tuple[int, str]:
    """An `enlist-primary` command, run in this process: its status, and all that it printed."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(out):
        status = main(["--data", str(primary.data), *line])
    return status, out.getvalue()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Real processes, so that there are command lines and environments to look at."""
    folder = tmp_path_factory.mktemp("scene")
    with primary_process(folder) as primary:

        def last_line(*line: str) -> str:
            return command(primary, *line)[1].splitlines()[-1]

        full, restricted = (last_line("api-key", "add", "acme.example", *kind) for kind in (["--full"], []))
        line = joinline.parse(last_line("join", "acme.example", "--name", "invited"))
        shown = json.loads(command(primary, "api-key", "add", "acme.example", "--json")[1])["api_key"]
        api_key_file = folder / "api-key"
        api_key_file.write_text(full)
        api_key_file.chmod(0o600)
        secondary = SecondaryProcess(folder, "web1")
        said = [json.dumps(secondary.set_up(primary, "--api-key-file", str(api_key_file)))]
        secondary.start()
        try:
            wait_for(lambda: "link opened" in primary.log, what="the link")
            yield Scene(
                primary,
                secondary,
                {
                    "owner's token": secret_of(primary.owner_token),
                    "full API key": secret_of(full),
                    "restricted API key": secret_of(restricted),
                    "API key shown as JSON": secret_of(shown),
                    "API key of a join line": secret_of(line.api_key),
                    "authority's key": private_part((primary.data / "authority.key").read_text()),
                    **{f"secondary's {path.name}": private_part(path.read_text()) for path in secondary.data.rglob("*.key")},
                },
                said,
            )
        finally:
            secondary.close()


def test_there_are_secrets_to_be_found(scene: Scene) -> None:
    """Else the tests below could not fail."""
    assert all(len(secret) >= 32 for secret in scene.secrets.values())
    assert scene.search((scene.primary.data / "owner.token").read_text()) == ["owner's token"]
    assert any(name.startswith("secondary's") for name in scene.secrets)


def test_no_secret_is_in_a_log(scene: Scene) -> None:
    """Neither end's."""
    assert "link opened" in scene.primary.log
    assert scene.search(scene.primary.log) == []
    assert scene.search(scene.secondary.log) == []


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "line",
    [
        *("status", "tree", "account list", "account show acme.example", "server list", "server show web1", "journal verify"),
        *("journal show", "journal show acme.example", "journal show .", "api-key list acme.example", "server show nobody"),
    ],
)
def test_no_command_tells_a_secret_again(scene: Scene, line: str, as_json: bool) -> None:
    words = [*line.split(), *(["--json"] if as_json else [])]
    status, said = command(scene.primary, *words)
    assert status == (1 if line.endswith("nobody") else 0)
    assert scene.search(said) == []


def test_setting_a_server_up_prints_no_secret(scene: Scene) -> None:
    assert scene.search("".join(scene.said)) == []
    done = run("enlist-secondary", "--config", str(scene.secondary.config), "status")
    assert scene.search(done.stdout + done.stderr) == []


def test_no_secret_is_in_a_command_line_or_an_environment(scene: Scene) -> None:
    """What every user of the machine can read."""
    for process in (scene.primary, scene.secondary):
        for kind in ("cmdline", "environ"):
            shown = Path(f"/proc/{process.pid}/{kind}").read_bytes().decode(errors="replace")
            assert scene.search(shown) == []
            assert re.search(r"enl[u]?_[a-z2-7]{10}_", shown) is None


def test_the_database_holds_hashes_only(scene: Scene) -> None:
    """Text columns and the files' very bytes, the write-ahead log included; the journal's text is one of them."""
    database = scene.primary.data / "enlist.db"
    texts: list[str] = []
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            texts += [str(value) for row in connection.execute(f"SELECT * FROM {table}") for value in row if isinstance(value, str)]
    assert any("api-key.create" in text for text in texts)
    assert scene.search("\n".join(texts)) == []
    for path in scene.primary.data.glob("enlist.db*"):
        assert scene.search(path.read_bytes().decode("latin-1")) == [], path.name


def test_no_file_but_its_own_holds_a_secret(scene: Scene) -> None:
    """In the primary's folder; and the secondary erased its API key the moment it was trusted."""
    for path in scene.primary.data.rglob("*"):
        if path.is_file() and path.name not in OWN:
            assert scene.search(path.read_bytes().decode("latin-1")) == [], path
    for path in [scene.secondary.config, *scene.secondary.data.rglob("*")]:
        if path.is_file() and path.suffix != ".key":
            assert scene.search(path.read_bytes().decode("latin-1")) == [], path


# --- What nobody foresaw -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raised", [RuntimeError, KeyError, ValueError])
async def test_an_unforeseen_failure_quotes_no_secret_to_the_caller_nor_into_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Callable[[str], Exception]
) -> None:
    """An exception that carries the very API key: the caller gets an id, the log what happened with the API key blacked out."""

    def fail(*arguments: Any) -> Any:
        raise raised(f"could not register {arguments[2]!r}")

    monkeypatch.setattr(enrolment, "register", fail)
    with recorded() as records:
        async with running_primary(tmp_path) as running, running.stranger() as stub:
            api_key = await running.api_key()
            told = await refused_by(Asker(running).register(stub, api_key))
    assert told.reason is Reason.INTERNAL
    assert secret_of(api_key) not in told.message
    written = "\n".join(map(LineFormatter().format, records.records))
    assert "could not register" in written
    assert re.search(r"[a-z2-7]{10}", told.message.rsplit(" ", 1)[1])
    assert secret_of(api_key) not in written
