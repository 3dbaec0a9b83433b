"""Carrying out a plan: the one module that writes what was answered, and takes it back if the primary then refuses.

The configuration is written last. Before it there is no enrolment, whatever else a crash left behind; with it, `enlist-secondary`
and a second run of the installer go on from there.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from enlist import names
from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.runtime.threads import to_the_end
from enlist.transport.dialer import Dialer
from enlist.v1 import registration_pb2 as pb
from enlist.v1 import server_pb2
from enlist_installer import places, removing
from enlist_installer.plan import Plan, Standing, Wanted, plan
from enlist_secondary import api_key, checks, enrol, identity, state
from enlist_secondary import config as configs
from enlist_secondary.checks import Clock, Primary, Way
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.identity import Identity
from enlist_secondary.known_primaries import KnownPrimaries
from enlist_secondary.state import State

PASSING = enrol.PERHAPS_HEARD | {Reason.OVERLOADED}
"""Refusals that other answers would not avert: there is no use in going through the questions again."""

_UNDECIDED = frozenset({server_pb2.SERVER_STATE_PENDING, server_pb2.SERVER_STATE_SUSPENDED})


@dataclass(frozen=True)
class Answered:
    """What was answered, every answer checked. Where nothing new is asked of the primary there is no admission, and the API key is
    None: whatever is kept stays. An empty one is the account's default restricted API key. It stays out of the repr."""

    primary: Primary
    way: Way
    wanted: SecondaryConfig
    path: Path
    admission: pb.ValidateResponse | None = None
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Setup:
    """What was answered, how it is carried out, and who said so."""

    answered: Answered
    plan: Plan
    person: str
    ask_again: bool
    """Whether the primary is asked even where it has decided before."""
    present: SecondaryConfig | None = None
    """The configuration that stood when this was planned."""

    @property
    def config(self) -> SecondaryConfig:
        """The configuration that is written."""
        return self.plan.config

    @property
    def target(self) -> Path:
        """The file it is written to."""
        path = self.answered.path
        return configs.next_path(path) if self.plan.staged else path


def planned(answered: Answered, person: str, ask_again: bool = False, stay: bool = False) -> Setup:
    """What has to be done, given what stands now; the two flags are those of `plan.Wanted`."""
    path, config = answered.path, answered.wanted
    wanted = Wanted(config, answered.primary.authority.primary_id, ask_again, stay)
    enrolment = "main" if not (config.data_folder / "main").exists() else names.new_id(secrets.token_bytes)
    current, staged = standing(path), standing(configs.next_path(path))
    present = current.config if current else None
    return Setup(answered, plan(wanted, current, staged, enrolment), person, ask_again, present)


def invited_as(planned: Setup, name: str) -> Setup:
    """The same under the name that an invitation keeps for the server; an enrolment that goes on has its name already."""
    if not planned.plan.new_enrolment:
        return planned
    return replace(planned, plan=replace(planned.plan, config=msgspec.structs.replace(planned.config, name=name)))


def name_before(planned: Setup) -> str | None:
    """The display name that is written down for an enrolment that goes on; None for a new one."""
    before = None if planned.plan.new_enrolment else standing(planned.target)
    return before.config.name if before else None


def standing(path: Path) -> Standing | None:
    """The enrolment a configuration file stands for; None if the file is not there."""
    if not path.exists():
        return None
    config = configs.load(path)
    mine = identity.load(config.folder)
    return Standing(config, mine.authority.primary_id if mine else None, state.load(config.folder).state)


async def carry_out(setup: Setup, dialer: Dialer, now: Clock) -> State:
    """Writes the plan down and has the primary say where this server stands. Of a new enrolment it refuses, nothing is left.

    What it may have registered stays, for the key would be lost, and with it the use of an API key."""
    setup = await _met_again(setup, dialer, now)
    before, data = _Before.remember(setup), setup.config.data_folder
    files.make_folder(data)
    busy = f"Another enlist-setup is at work in {data}. Try again when it is done."
    with files.lock(data / places.LOCK, Reason.ALREADY_RUNNING, busy):
        _check_as_planned(setup)
        stands = await _carry_out(setup, before, dialer, now)
        await to_the_end(removing.clear, setup.answered.path, data)
        return stands


def _check_as_planned(setup: Setup) -> None:
    """Refuses if somebody else has written what did not stand, or stood otherwise, when this was planned."""
    path, new = setup.answered.path, setup.plan.new_enrolment
    if setup.present is None:
        places.check_data(setup.config.data_folder, path)
    if present(path) != setup.present or (new and setup.config.folder.exists()):
        raise changed_meanwhile(path)


def changed_meanwhile(path: Path) -> Refused:
    """The refusal where a configuration is no longer the one that was shown, or planned on."""
    return Refused(Reason.ALREADY_RUNNING, f"{path} was changed by another enlist-setup, or by the daemon. Run this again.")


async def _carry_out(setup: Setup, before: _Before, dialer: Dialer, now: Clock) -> State:
    new, dropped = setup.plan.new_enrolment, _dropped(setup)
    try:
        mine = await to_the_end(write, setup, int(now()))
        ask_again = new or setup.ask_again
        if ask_again or not _settled(setup.config, mine, int(now())):
            await first_word(dialer, setup.answered.primary, setup.config, mine, now, ask_again)
    except Refused as refused:
        if not new:
            raise
        if state.load(setup.config.folder).asked:
            await to_the_end(_drop, setup, dropped)
            if refused.reason in enrol.FINAL:
                raise
            stays = f"What was written stays in {setup.target}: enlist-secondary goes on from there."
            raise Refused(refused.reason, f"{refused.message} {stays}") from None
        await to_the_end(before.restore)
        raise
    await to_the_end(_drop, setup, dropped)
    return await take_over_if_trusted(setup)


async def _met_again(setup: Setup, dialer: Dialer, now: Clock) -> Setup:
    """The primary as it is now: it may have come back with another certificate while a person read the summary."""
    answered = setup.answered
    primary = await checks.reach(dialer, answered.primary.address, now)
    checks.check_unchanged(primary, answered.primary.authority)
    return replace(setup, answered=replace(answered, primary=primary))


def _settled(config: SecondaryConfig, mine: Identity, now: int) -> bool:
    return state.load(config.folder).state == "trusted" and mine.usable(now)


async def take_over_if_trusted(setup: Setup) -> State:
    """Lets a different primary take over if it has authorized this server. Returns where the enrolment stands."""
    stands = state.load(setup.config.folder)
    if setup.plan.staged and stands.state == "trusted":
        await to_the_end(configs.switch, setup.answered.path)
    return stands


def left_behind(done: Setup) -> SecondaryConfig | None:
    """The enrolment at a primary that knew of this server, and was not told, when a different one took over."""
    took_over = done.plan.staged and state.load(done.config.folder).state == "trusted"
    return done.present if took_over and done.present and state.load(done.present.folder).server_id else None


def write(setup: Setup, now: int) -> Identity:
    """Writes everything, each file in one step and 0600, the configuration last; the one that was there is kept as a backup."""
    config, answered = setup.config, setup.answered
    authority = answered.primary.authority
    files.make_folder(config.data_folder)
    places.claim(config.data_folder, answered.path)
    KnownPrimaries.load(config.data_folder).accept(authority, config.address, answered.way, setup.person, now)
    mine = identity.make(config.folder, authority)
    if answered.api_key is not None:
        api_key.keep(config.folder, answered.api_key)
    _write_config(setup)
    return mine


def waiting_elsewhere(planned: Setup) -> tuple[SecondaryConfig, State] | None:
    """The request at a different primary that this gives up, and how it stands there; None if that primary knows of none."""
    staged = standing(configs.next_path(planned.answered.path)) if planned.plan.drops_staged else None
    stands = state.load(staged.config.folder) if staged else State()
    return (staged.config, stands) if staged and stands.server_id else None


def present(path: Path) -> SecondaryConfig | None:
    """The configuration that stands."""
    return configs.load(path) if path.exists() else None


def content(path: Path) -> bytes | None:
    """What stands in a file; None without one."""
    return files.read(path) if path.exists() else None


def _write_config(setup: Setup) -> None:
    """Unless it stands otherwise by now than it was planned on: by the daemon, or by one with another data folder and so another
    lock."""
    path = setup.answered.path
    if not path.parent.exists():
        files.make_folder(path.parent)
    with files.turn(path):
        if present(path) != setup.present:
            raise changed_meanwhile(path)
        _replace(setup.target, configs.render(setup.config).encode())


def _replace(path: Path, text: bytes) -> None:
    if not path.exists():
        files.write(path, text)
    elif files.read(path) != text:
        files.write(configs.backup_path(path), files.read(path))
        files.write(path, text)


def _dropped(setup: Setup) -> Path | None:
    """The folder of the enrolment that waits at a different primary, where this gives that up: once this one stands, it goes."""
    return configs.load(configs.next_path(setup.answered.path)).folder if setup.plan.drops_staged else None


def _drop(setup: Setup, folder: Path | None) -> None:
    if folder is None:
        return
    if setup.plan.staged:  # what waited was written over
        removing.forget(setup.answered.path, folder)
    else:
        removing.give_up(setup.answered.path)


@dataclass(frozen=True)
class _Before:
    """What stood before a new enrolment was written."""

    path: Path
    contents: dict[Path, bytes | None]
    shared: tuple[Path, ...]
    """Those of them that every enrolment in the data folder has in common."""
    known: KnownPrimaries
    primary_id: str
    """The id of the primary that this set-up accepts."""
    folder: Path
    made: tuple[Path, ...]
    target: Path
    text: bytes
    """What this set-up writes to `target`."""

    @classmethod
    def remember(cls, setup: Setup) -> _Before:
        data, folder = setup.config.data_folder, setup.target.parent
        known, primary_id = KnownPrimaries.load(data), setup.answered.primary.authority.primary_id
        shared = (data / places.CLAIM, data / places.LOCK)
        contents = {path: content(path) for path in (setup.target, configs.backup_path(setup.target), *shared)}
        above = (data, *data.parents, folder, *folder.parents)
        made, text = tuple(each for each in above if not each.exists()), configs.render(setup.config).encode()
        path = setup.answered.path
        return cls(path, contents, shared, known, primary_id, setup.config.folder, made, setup.target, text)

    def restore(self) -> None:
        """The keys go first, and what cannot be restored costs nothing else: the disk may be full."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(Refused), files.turn(self.path):
            if content(self.target) == self.text:  # else it was not written yet, or it is somebody else's
                self._put_back(self.target, configs.backup_path(self.target))
        self._put_back(*self.shared)
        with contextlib.suppress(Refused):
            self.known.take_back(self.primary_id)
        for folder in self.made:
            with contextlib.suppress(OSError):  # made by somebody else meanwhile, and no longer empty
                folder.rmdir()

    def _put_back(self, *paths: Path) -> None:
        for path in paths:
            before = self.contents[path]
            with contextlib.suppress(Refused):
                files.remove(path) if before is None else files.write(path, before)


class _Heard(Exception):
    """Ends the waiting for a decision, once the primary has said that there will be one."""


async def first_word(
    dialer: Dialer, primary: Primary, config: SecondaryConfig, mine: Identity, now: Clock, ask_again: bool = False
) -> None:
    """Has the primary say where this server stands, having asked to join if need be; it is written down. A certificate is kept if
    there is one already, and not waited for."""

    def hear(told: pb.Enrolment) -> None:
        if told.state in _UNDECIDED:
            raise _Heard

    with contextlib.suppress(_Heard):
        await enrol.enrol(dialer, primary, config, mine, now, hear, ask_again)
