"""What the wizard offers where a configuration stands already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from enlist.reasons import Reason, Refused
from enlist.runtime import files
from enlist.runtime.threads import to_the_end
from enlist_installer import questions, removing, service, setup, waiting, words
from enlist_installer.answers import Answers
from enlist_installer.interview import Interview
from enlist_installer.plan import Standing
from enlist_installer.questions import Question
from enlist_installer.wizard import Wizard
from enlist_secondary import config as configs
from enlist_secondary import doctor, enrol, identity, meeting, state
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.identity import Identity


class Choice(StrEnum):
    """What a person can want of an enrolment that stands."""

    SETTINGS = "Change settings"
    ADDRESS = "Same primary at a new address"
    PRIMARY = "A different primary, or another account"
    STAY = "Stay with the present primary after all"
    REPAIR = "Repair"
    REMOVE = "Remove this server from its primary, and its files"
    NOTHING = "Nothing, leave all as it is"


_ASKED: Mapping[Choice, frozenset[Question]] = {
    Choice.SETTINGS: frozenset({questions.NAME, questions.SERVER_ADDRESS}),
    Choice.ADDRESS: frozenset({questions.PRIMARY}),
    Choice.REPAIR: frozenset(),
}


async def run(wizard: Wizard, given: Answers) -> None:
    """The whole wizard: sets up a server that is new, and asks what is wanted of one that is not."""
    wizard.say(words.WELCOME)
    path = given.config or configs.DEFAULT_PATH
    standing = setup.standing(path)
    if standing is None:
        await wizard.new(given, path)
    else:
        await _choose(wizard, given, path, standing)


async def _choose(wizard: Wizard, given: Answers, path: Path, standing: Standing) -> None:
    config, staged = standing.config, setup.standing(configs.next_path(path))
    wizard.shown = config
    wizard.say(words.standing(path, standing, staged))
    offered = [choice for choice in Choice if choice is not Choice.STAY or staged]
    choice = await questions.choose(questions.WHAT, {choice: choice.value for choice in offered})
    if choice is Choice.REMOVE:
        await remove(wizard, path, config)
    elif choice is Choice.STAY:
        _check_shown(wizard, path)
        wizard.written = True
        if staged:
            await _taken_back(wizard, staged.config)
        await to_the_end(removing.give_up, path)
    elif choice is Choice.PRIMARY:
        await _different(wizard, given, path, config)
    elif choice is not Choice.NOTHING:
        await _onward(wizard, given, path, standing, choice)


async def _onward(wizard: Wizard, given: Answers, path: Path, standing: Standing, choice: Choice) -> None:
    """The enrolment stays: whoever answers must be the primary it is with."""
    given = replace(given, primary_fingerprint=standing.primary_id or given.primary_fingerprint)
    interview = Interview(wizard.say, wizard.dialer, wizard.now, given, path, standing.config)
    asked = _ASKED[choice]
    if choice is Choice.REPAIR:
        wizard.say(words.diagnosis(await doctor.diagnose(wizard.dialer, standing.config, wizard.now)))
    elif choice is Choice.SETTINGS and standing.state not in ("trusted", "suspended"):
        asked |= {questions.API_KEY}
    done = await wizard.agreed(lambda: interview.onward(standing.config, asked))
    server_id = state.load(done.config.folder).server_id
    if server_id and done.config.name != standing.config.name:
        wizard.say(words.renamed(done.config.name, server_id))
    await wizard.finish(done)


async def _different(wizard: Wizard, given: Answers, path: Path, config: SecondaryConfig) -> None:
    wizard.say(words.DIFFERENT)
    interview = Interview(wizard.say, wizard.dialer, wizard.now, given, path, config)
    await interview.join_line()
    done = await wizard.agreed(interview.everything)
    await wizard.finish(done)
    if left := setup.left_behind(done):
        wizard.say(words.left_behind(left, state.load(left.folder)))


async def remove(wizard: Wizard, path: Path, config: SecondaryConfig) -> None:
    """Leaves the primary, stops the service, and removes configuration, keys and state."""
    if not await questions.confirm(questions.REMOVE, default=False):
        wizard.say(words.NOTHING_CHANGED)
        return
    if config.local_primary is not None:
        below = await questions.choose(questions.BELOW, questions.BEQUESTS)
        await state.update(config.folder, lambda known: replace(known, on_leave=below), strict=True)
    _check_shown(wizard, path)
    wizard.written = True
    if not await _left(wizard, config):
        wizard.say(words.FILES_STAY)
        return
    if staged := setup.standing(configs.next_path(path)):
        await _taken_back(wizard, staged.config)
    await service.remove(path)
    await waiting.ended(config)
    running = "enlist-secondary is running. Stop it, and choose this again."
    with files.lock(config.lock, Reason.ALREADY_RUNNING, running):
        _check_shown(wizard, path)  # leaving took a while
        await to_the_end(removing.erase, path)
    wizard.say("  Removed.")


def _check_shown(wizard: Wizard, path: Path) -> None:
    """Refuses where the daemon, or somebody else, has changed the configuration since the person saw it."""
    if setup.present(path) != wizard.shown:
        raise setup.changed_meanwhile(path)


async def _taken_back(wizard: Wizard, staged: SecondaryConfig) -> None:
    """Takes the request at a different primary back; where that cannot be, it expires by itself, and the person knows of it."""
    mine = identity.load(staged.folder)
    try:
        if mine is not None and state.load(staged.folder).asked:
            await _leave(wizard, staged, mine)
    except Refused as refused:
        wizard.say(words.told(refused))
        if (stands := state.load(staged.folder)).server_id:
            wizard.say(words.left_behind(staged, stands))


async def _left(wizard: Wizard, config: SecondaryConfig) -> bool:
    """Whether the files may go: this server has left its primary, or the person says so all the same."""
    mine = identity.load(config.folder)
    if mine is None:
        return True
    try:
        identity.check_machine(config.folder)  # a copy would take the original out of the account
        await _leave(wizard, config, mine)
    except Refused as refused:
        wizard.say(words.told(refused))
        return await questions.confirm(questions.REMOVE_ALL_THE_SAME, default=False)
    return True


async def _leave(wizard: Wizard, config: SecondaryConfig, mine: Identity) -> None:
    primary = await meeting.meet(wizard.dialer, config, mine.authority, wizard.now)
    await enrol.leave(wizard.dialer, primary, config, mine, wizard.now)
