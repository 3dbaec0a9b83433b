"""Answers given beforehand: one name each, one order of precedence, contradictions refused, secrets kept out of sight."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from enlist.joinline import JoinLine
from enlist.names import Address
from enlist.reasons import Reason, Refused
from enlist_installer import answers
from enlist_installer.answers import Answers, Given, MissingAnswer
from enlist_installer.cli import parser
from enlist_secondary.config import SecondaryConfig

README = Path(__file__).parents[2] / "README.md"
FINGERPRINT = "a" * 64
KEY = "enl_aaaaaaaaaa_" + "s" * 32
LINE = JoinLine(Address("primary.example", 13299), "acme.example", FINGERPRINT, KEY)


def no_stdin() -> str:
    raise AssertionError("nobody said to read standard input")


def gather(given: Given, file: Path | None = None, environment: dict[str, str] | None = None, stdin: str | None = None) -> Answers:
    return answers.gather(given, str(file) if file else None, environment or {}, no_stdin if stdin is None else lambda: stdin)


def test_every_question_is_a_flag_and_a_key_of_the_answers_file() -> None:
    flags = {action.dest for group in parser()._action_groups if group.title == "answers" for action in group._group_actions}
    assert flags - {"answers", "service"} == set(Given.__struct_fields__)


def test_the_help_spells_the_keys_of_the_answers_file_as_they_are_read(tmp_path: Path) -> None:
    said = " ".join(parser().format_help().split())
    flag, key = re.findall(r"(--[a-z-]+) is ([a-z_-]+) there", said)[0]
    assert flag == "--" + key.replace("_", "-")
    file = tmp_path / "answers.toml"
    file.write_text(f'{key} = "{FINGERPRINT}"\n')
    assert gather(Given(), file).primary_fingerprint == FINGERPRINT


def test_the_answers_file_in_the_readme_is_good(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```toml\n(primary = .*?)```", README.read_text(), re.DOTALL)
    file = tmp_path / "answers.toml"
    file.write_text(shown)
    found = gather(Given(), file)
    assert (found.primary, found.account) == (Address("primary.example", 13299), "acme.example")
    assert found.primary_fingerprint


def test_nothing_given_is_nothing_answered() -> None:
    assert gather(Given()) == Answers()


def test_answers_come_in_their_normal_forms() -> None:
    given = Given(
        primary="[2001:DB8::1]:99", primary_fingerprint="AA:" * 31 + "AA", server_address="", data="some/where", company_ca="none"
    )
    found = gather(given)
    assert found.primary == Address("2001:db8::1", 99)
    assert found.primary_fingerprint == FINGERPRINT
    assert found.server_address == ""
    assert found.data == Path.cwd() / "some/where"
    assert found.company_ca == "none"


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        (Given(primary="http://x"), "--primary"),
        (Given(primary="x:99999"), "--primary"),
        (Given(account="Acme.example"), "--account"),
        (Given(name="a/b"), "--name"),
        (Given(name="\x1b[31mred"), "--name"),
        (Given(server_address="a b"), "--server-address"),
        (Given(primary_fingerprint="abc"), "--primary-fingerprint"),
        (Given(config="x\0y"), "--config"),
        (Given(data=""), "--data"),
    ],
)
def test_an_answer_without_a_normal_form_is_refused_under_its_flag(given: Given, flag: str) -> None:
    with pytest.raises(Refused) as refused:
        gather(given)
    assert refused.value.reason is Reason.INVALID_ARGUMENT
    assert refused.value.message.startswith(flag + ": ")


def test_a_flag_goes_before_the_answers_file(tmp_path: Path) -> None:
    file = tmp_path / "answers.toml"
    file.write_text('name = "file"\naccount = "acme.example"\n')
    found = gather(Given(name="flag"), file)
    assert (found.name, found.account) == ("flag", "acme.example")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name = 7", "line 1: name: expected text in quotes"),
        ('\nnmae = "x"', "line 2: nmae: this key is not known"),
        ("name = [", "line 1"),
        ('confirm_identity = "never"', 'line 1: confirm_identity: expected one of "auto", "always"'),
        ("api_key = 'enl_x'", "line 1: api_key: this key is not known"),
    ],
)
def test_a_malformed_answers_file_is_named_with_line_and_key(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "answers.toml"
    file.write_text(content)
    with pytest.raises(Refused) as refused:
        gather(Given(), file)
    assert refused.value.reason is Reason.CONFIG_INVALID
    assert f"{file}: {words}" in refused.value.message


@pytest.mark.parametrize("flags", [Given(join_file="missing"), Given(api_key_file="missing")])
def test_a_file_that_is_not_there_is_refused(flags: Given) -> None:
    with pytest.raises(Refused) as refused:
        gather(flags)
    assert refused.value.reason is Reason.FILE_FAILED


def test_a_join_line_answers_where_as_what_and_with_which_key() -> None:
    found = gather(Given(join_file="-", name="gw1"), stdin=f"# for gw1\n{LINE}\n")
    assert found == Answers(
        primary=LINE.address, primary_fingerprint=FINGERPRINT, account="acme.example", api_key=KEY, name="gw1", joined=True
    )


@pytest.mark.parametrize(
    "given",
    [Given(primary="other.example"), Given(account="other.example"), Given(primary_fingerprint="b" * 64)],
)
def test_a_flag_that_contradicts_the_join_line_is_refused(given: Given) -> None:
    with pytest.raises(Refused, match="but the join line says") as refused:
        gather(given, environment={"ENLIST_JOIN": str(LINE)})
    assert refused.value.reason is Reason.INVALID_ARGUMENT


def test_another_api_key_than_the_join_lines_is_refused_without_showing_either() -> None:
    with pytest.raises(Refused) as refused:
        gather(Given(), environment={"ENLIST_JOIN": str(LINE), "ENLIST_API_KEY": "enl_other"})
    assert "enl_" not in refused.value.message


def test_a_flag_that_agrees_with_the_join_line_is_fine() -> None:
    given = Given(primary="primary.example:13299", account="acme.example", primary_fingerprint=FINGERPRINT)
    assert gather(given, environment={"ENLIST_JOIN": str(LINE), "ENLIST_API_KEY": KEY}).joined


@pytest.mark.parametrize("typed", ["Primary.Example.", "primary.example.:13299"])
def test_a_flag_may_hold_any_form_of_the_join_lines_name(typed: str) -> None:
    given = Given(primary=typed, server_address="gw1.bücher.example.")
    found = gather(given, environment={"ENLIST_JOIN": str(LINE)})
    assert found.primary == LINE.address
    assert found.server_address == "gw1.xn--bcher-kva.example"


def test_a_file_goes_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"\n{KEY}\n")
    assert gather(Given(api_key_file=str(file)), environment={"ENLIST_API_KEY": "enl_other"}).api_key == KEY
    assert gather(Given(), environment={"ENLIST_API_KEY": f" {KEY}\n"}).api_key == KEY


def test_standard_input_is_read_for_one_secret_only() -> None:
    assert gather(Given(api_key_file="-"), stdin=f"{KEY}\n").api_key == KEY
    with pytest.raises(Refused, match="not both"):
        gather(Given(api_key_file="-", join_file="-"), stdin="x")


def test_no_secret_in_a_repr() -> None:
    """attacks row 44"""
    assert KEY not in repr(gather(Given(join_file="-"), stdin=str(LINE)))


CONFIG = SecondaryConfig(
    primary="[2001:db8::1]:99",
    account="acme.example",
    name="gw1",
    server_address="gw1.acme.example",
    data="/srv/enlist",
    confirm_identity="always",
    company_ca="none",
)


def test_a_configuration_answers_itself() -> None:
    assert answers.wanted(answers.of(CONFIG)) == CONFIG


def test_what_stands_fills_the_gaps_and_nothing_else() -> None:
    given = Answers(name="gw2", server_address="", api_key=KEY)
    found = answers.filled(given, CONFIG)
    assert (found.name, found.server_address, found.api_key) == ("gw2", "", KEY)
    assert (found.account, found.company_ca, found.data) == ("acme.example", "none", Path("/srv/enlist"))


def test_what_nobody_answered_has_a_default_except_where_and_as_what() -> None:
    found = answers.wanted(Answers(primary=Address("p.example", 13299), account="acme.example"))
    assert (found.primary, found.server_address, found.data) == ("p.example", "", "/var/lib/enlist/secondary")
    assert found.name
    for missing in (Answers(account="acme.example"), Answers(primary=Address("p.example", 13299))):
        with pytest.raises(MissingAnswer):
            answers.wanted(missing)
