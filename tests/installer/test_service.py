"""The systemd unit: its text says what runs, and nothing in a path is taken for systemd's own signs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from enlist.reasons import Reason, Refused
from enlist_installer import service

CONFIG = Path("/etc/enlist/secondary.toml")
DATA = Path("/var/lib/enlist")


class Systemctl:
    """Notes what systemctl was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, *arguments: str) -> None:
        self.asked.append(" ".join(arguments))


@pytest.fixture
def systemctl(monkeypatch: pytest.MonkeyPatch) -> Systemctl:
    fake = Systemctl()
    monkeypatch.setattr(service, "_systemctl", fake)
    return fake


def test_the_unit_runs_the_daemon_again_after_every_failure_but_a_final_no() -> None:
    unit = service.unit(CONFIG, DATA)
    assert '"--config" "/etc/enlist/secondary.toml" "run"' in unit
    assert "Restart=on-failure" in unit
    assert "RestartPreventExitStatus=2 3\n" in unit
    assert 'RequiresMountsFor="/var/lib/enlist" "/etc/enlist/secondary.toml"\n' in unit


def test_the_owners_handlers_are_not_confined_and_the_daemon_ends_them_itself() -> None:
    """ADR 0009: a handler writes where its owner says; a stop must not look like a check that failed."""
    unit = service.unit(CONFIG, DATA)
    assert not re.search("Protect|Private|Paths=|NoNewPrivileges|Capabilit|SystemCall", unit), unit
    assert "KillMode=mixed\n" in unit


def test_signs_of_systemd_in_a_path_stand_for_themselves() -> None:
    unit = service.unit(Path('/srv/a b/100%/$x/"q".toml'), DATA)
    assert r'"/srv/a b/100%%/$$x/\"q\".toml"' in unit
    assert r'RequiresMountsFor="/var/lib/enlist" "/srv/a b/100%%/$x/\"q\".toml"' in unit


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / service.UNIT
    unit.write_text(service.unit(CONFIG, DATA).replace(service.command(CONFIG)[0], "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60)
    assert service.UNIT not in done.stderr, done.stderr


def test_the_command_to_type_survives_a_shell() -> None:
    assert service.shown(Path("/srv/a b/s.toml")).endswith("--config '/srv/a b/s.toml' run")


@pytest.mark.parametrize("config", [CONFIG, Path('/srv/a b/100%/$x/"q".toml')], ids=["plain", "signs"])
async def test_installing_twice_writes_once_and_starts_both_times(tmp_path: Path, systemctl: Systemctl, config: Path) -> None:
    assert await service.install(config, DATA, tmp_path)
    assert not await service.install(config, DATA, tmp_path)
    assert systemctl.asked == ["daemon-reload", f"enable --now {service.UNIT}", f"enable --now {service.UNIT}"]
    assert (tmp_path / service.UNIT).stat().st_mode & 0o777 == 0o644


async def test_the_unit_of_another_configuration_is_left_alone(tmp_path: Path, systemctl: Systemctl) -> None:
    await service.install(CONFIG, DATA, tmp_path)
    before = (tmp_path / service.UNIT).read_bytes()
    with pytest.raises(Refused) as refused:
        await service.install(Path("/srv/other.toml"), DATA, tmp_path)
    assert refused.value.reason is Reason.ALREADY_EXISTS
    assert not await service.remove(Path("/srv/other.toml"), tmp_path)
    assert (tmp_path / service.UNIT).read_bytes() == before


async def test_removing_stops_the_service_first(tmp_path: Path, systemctl: Systemctl) -> None:
    await service.install(CONFIG, DATA, tmp_path)
    systemctl.asked.clear()
    assert await service.remove(CONFIG, tmp_path)
    assert systemctl.asked == [f"disable --now {service.UNIT}", "daemon-reload"]
    assert not (tmp_path / service.UNIT).exists()
    assert not await service.remove(CONFIG, tmp_path)


async def test_a_systemctl_that_fails_is_a_refusal_with_its_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "systemctl"
    fake.write_text("#!/bin/sh\necho 'Unit is masked.' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match=r"systemctl try-restart .* failed: Unit is masked\."):
        await service.restart()


async def test_no_systemctl_at_all_is_a_refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused):
        await service.restart()
