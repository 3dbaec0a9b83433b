"""Attacks rows 36 and 44 from end to end: what stands in policies and tasks is data, and secrets in it stay where they belong."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from enlist.reasons import Reason, Refused
from enlist.v1 import account_pb2, document_pb2, hierarchy_pb2, journal_pb2, policy_pb2, server_pb2, task_pb2
from enlist_primary.store.database import Row, Transaction
from tests.attacks.pair import PARENT, Pair, paired
from tests.support.inprocess import ACCOUNT, refused_by
from tests.support.waiting import eventually

SUCCEEDED, FAILED = document_pb2.TASK_STATE_SUCCEEDED, document_pb2.TASK_STATE_FAILED


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    """Two ends that know each other."""
    with pytest.MonkeyPatch.context() as patch:
        async with paired(tmp_path_factory.mktemp("pair"), patch) as pair:
            yield pair


@pytest.fixture
async def pair(shared: Pair) -> AsyncIterator[Pair]:
    """Afterwards nobody has planted anything, and the link is open."""
    shared.mark = len(shared.records.records)
    before, link = planted(shared.folder), shared.link
    yield shared
    assert planted(shared.folder) == before
    assert shared.link is link
    assert not [each for each in shared.records.records[shared.mark :] if each.exc_info]


def planted(folder: Path) -> set[str]:
    """What could only be there if somebody obeyed."""
    return {str(path) for path in folder.rglob("*") if "planted" in path.name}


def commands(folder: Path) -> list[str]:
    """What a shell, a template or a careless program would obey."""
    path = folder / "planted"
    return [
        *(f"; touch {path}", f"$(touch {path})", f"`touch {path}`", f"x\n touch {path}", f"| tee {path}", f"& touch {path} &"),
        *("--flag", "--exec=/bin/sh", "-c", f"{{{{ open('{path}', 'w') }}}}", "%(x)s", "${IFS}", "../../planted", f"file://{path}"),
    ]


# --- Row 36 ---------------------------------------------------------------------------------------------------------------------


async def test_values_reach_the_owner_s_program_on_its_standard_input_and_change_no_word_of_its_command(pair: Pair) -> None:
    """As values and as names, in policies and in tasks: the command is the one that the owner wrote, each time."""
    nasty = commands(pair.folder)
    settings = {"values": nasty, "names": dict.fromkeys(nasty, 1), "\u202e": "\x1b[2J"}
    await pair.set(settings)
    await pair.comes_into_force(settings)
    result = await pair.over(await pair.run(settings))
    assert result.state == SUCCEEDED
    for kind in ("motd", "note"):
        assert [said for said in pair.told(kind) if said[0] != [str(pair.folder / kind), "--fixed"]] == []
        assert pair.told(kind)[-1][1] == settings


@pytest.mark.parametrize(
    "name", ["; touch planted", "$(touch planted)", "`touch planted`", "a --flag", "{{ 7*7 }}", "${IFS}", "%s"]
)
async def test_a_group_s_name_is_a_word_to_nobody(pair: Pair, name: str) -> None:
    """Groups are called as people like; the path travels with the policy, and names neither a file nor a program."""
    hierarchy, server = pair.running.admin.hierarchy, f"{PARENT}/servers/{pair.id}"
    await hierarchy.CreateGroup(hierarchy_pb2.CreateGroupRequest(parent=PARENT, path=name))
    await hierarchy.MoveServer(hierarchy_pb2.MoveServerRequest(name=server, group=name))
    await pair.set({"group": name}, group=name)
    await eventually(lambda: (pair.in_force() or {}).get("group") == name, what="the group's policy")
    assert pair.told()[-1][0] == [str(pair.folder / "motd"), "--fixed"]
    await hierarchy.MoveServer(hierarchy_pb2.MoveServerRequest(name=server, group="/"))
    label = hierarchy_pb2.LabelServerRequest(name=server, add=[name])
    assert (await refused_by(hierarchy.LabelServer(label))).reason is Reason.INVALID_ARGUMENT


async def test_only_kinds_that_the_owner_configured_do_anything(pair: Pair) -> None:
    """A policy's kind is no task's, nor the other way round; what is not there is said to be unsupported, and nothing is begun."""
    await pair.set({"text": "x"}, kind="note")

    async def unsupported() -> bool:
        key = policy_pb2.PolicyKey(parent=PARENT, group="/", kind="note")
        return (await pair.running.admin.policies.GetPolicy(policy_pb2.GetPolicyRequest(key=key))).counts.unsupported == 1

    before = pair.told("note")
    await eventually(unsupported, what="the server's word")
    for kind in ("motd", "sh", "python", "exec"):
        request = task_pb2.RunTaskRequest(parent=PARENT, kind=kind, target=task_pb2.TaskTarget(group="/"))
        assert (await refused_by(pair.running.admin.tasks.RunTask(request))).reason is Reason.KIND_UNSUPPORTED
    assert pair.told("note") == before


# --- Row 44 ---------------------------------------------------------------------------------------------------------------------

SECRET = "hunter2-Zq9"


async def test_a_secret_in_settings_or_arguments_is_in_no_log_no_journal_and_no_refusal(pair: Pair) -> None:
    """It is in the policy, where it belongs: in bodies, and with the owner's program."""
    await pair.set({"password": SECRET, SECRET: SECRET})
    await eventually(lambda: SECRET in (pair.in_force() or {}), what="the policy")
    await pair.over(await pair.run({"password": SECRET}))
    texts = [str(refused) for refused in await refusals(pair)]
    texts.append(pair.records.text(pair.mark))
    texts += [repr(entry) for account in (".", ACCOUNT) for entry in await entries(pair, account)]
    texts += [str(await pair.running.server(pair.id)), pair.secondary.path.read_text()]
    texts += map(str, await pair.running.primary.context.database.read(_without_bodies))
    assert not [text for text in texts if SECRET in text]
    assert json.dumps(pair.told()[-1]).count(SECRET) == 3


async def refusals(pair: Pair) -> list[Refused]:
    """Everything that is wrong with a policy or a task in which a secret stands."""
    admin, key = pair.running.admin, policy_pb2.PolicyKey(parent=PARENT, group="/", kind="vault")
    bad: list[dict[str, Any]] = [
        {"settings": f'{{"password": "{SECRET}", "password": "{SECRET}"}}'.encode()},
        {"settings": f'{{"password": "{SECRET}'.encode()},
        {"settings": f'["{SECRET}"]'.encode()},
        {"settings": f'{{"password": {SECRET}}}'.encode()},
        {"settings": f'{{"password": "{SECRET}", "x": NaN}}'.encode()},
        {"settings": json.dumps({"password": SECRET * 100_000}).encode()},
        {"settings": f'{{"password": "{SECRET}"}}'.encode(), "locks": ["/nothing/there"]},
    ]
    found = []
    for fields in bad:
        request = policy_pb2.SetPolicyRequest(key=key, layer=policy_pb2.Layer(**fields))
        found.append(await refused_by(admin.policies.SetPolicy(request)))
        plan = policy_pb2.PlanPolicyRequest(key=key, layer=policy_pb2.Layer(**fields))
        found.append(await refused_by(admin.policies.PlanPolicy(plan).read()))
    for fields in bad[:6]:
        request_task = task_pb2.RunTaskRequest(parent=PARENT, kind="note", target=task_pb2.TaskTarget(group="/"))
        request_task.args = fields["settings"]
        found.append(await refused_by(admin.tasks.RunTask(request_task)))
    return found


async def entries(pair: Pair, account: str) -> list[journal_pb2.JournalEntry]:
    """A journal."""
    return list(
        (await pair.running.admin.journal.ListEntries(journal_pb2.ListEntriesRequest(parent=f"accounts/{account}"))).entries
    )


def _without_bodies(tx: Transaction) -> list[Row]:
    """Every row but those that hold the documents themselves."""
    names = [row["name"] for row in tx.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return [row for name in names if name not in ("body", "task") for row in tx.rows(f"SELECT * FROM {name}")]


async def test_what_a_program_says_of_a_secret_goes_where_results_go_and_not_into_a_log(pair: Pair) -> None:
    """An owner's program that quotes what it was given: administrators may read that; the logs of both ends do not have it."""
    quoted = "correct-horse-7Qx"
    result = await pair.over(await pair.run({"say": quoted, "exit": 3}))
    assert (result.state, quoted.encode() in result.output) == (FAILED, True)
    assert quoted not in pair.records.text(pair.mark)


async def test_an_api_key_that_stands_in_a_policy_is_blacked_out_where_a_report_quotes_it(pair: Pair) -> None:
    key = await pair.running.api_key(kind=account_pb2.API_KEY_KIND_RESTRICTED)
    await pair.set({"say": key, "exit": 1})

    async def failed() -> Any:
        request = policy_pb2.ListPolicyReportsRequest(key=policy_pb2.PolicyKey(parent=PARENT, group="/", kind="motd"))
        (report,) = (await pair.running.admin.policies.ListPolicyReports(request)).reports
        return report.state == document_pb2.DOCUMENT_STATE_FAILED and report

    report = await eventually(failed, what="the failure")
    assert "enl_" in report.message
    assert key not in report.message
    assert key.rpartition("_")[2] not in pair.records.text(pair.mark)
    assert (await pair.running.server(pair.id)).state == server_pb2.SERVER_STATE_TRUSTED
