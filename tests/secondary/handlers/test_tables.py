"""`[handlers.policy.KIND]` and `[handlers.task.KIND]`: what an owner may write, and the file, line and key of what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from enlist.reasons import Reason, Refused
from enlist.runtime import files, formats
from enlist_secondary import config as configs
from enlist_secondary.config import SecondaryConfig
from enlist_secondary.handlers import tables
from enlist_secondary.handlers.configured import build_policies, build_tasks
from enlist_secondary.handlers.entry_point import EntryPointPolicy, EntryPointTask
from enlist_secondary.handlers.exec import ExecPolicy, ExecTask
from enlist_secondary.handlers.file import FilePolicy
from enlist_secondary.handlers.tables import EntryPoint, Exec, File

BASE = f'format = {formats.FORMAT}\nprimary = "primary.example"\naccount = "acme.example"\nname = "gw1"\ndata = "/var/lib/x"\n'
EXAMPLE = """
[handlers.policy.chrony]
type = "file"
path = "/etc/chrony/conf.d/enlist.conf"
format = "template"
template = "/etc/enlist/chrony.conf.j2"
mode = "0640"
check = ["chronyd", "-p", "-f", "{file}"]
reload = ["systemctl", "reload", "chrony"]
timeout = "30s"

[handlers.policy.plain]
type = "file"
path = "/etc/plain.json"
format = "json"

[handlers.policy.limits]
type = "exec"
command = ["/usr/local/bin/apply-limits", "--strict"]

[handlers.policy.x]
type = "entry-point"
object = "mypackage.module:function"

[handlers.task.restart]
type = "exec"
command = ["restart-service"]
timeout = "10m"

[handlers.task.y]
type = "entry-point"
object = "an-entry-point"
timeout = "2h"

[local_primary]
socket = "/var/lib/enlist/primary/run/upstream.sock"
"""


def loaded(folder: Path, text: str) -> SecondaryConfig:
    path = folder / "secondary.toml"
    files.write(path, (BASE + text).encode())
    return configs.load(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(Refused) as caught:
        loaded(folder, text)
    assert caught.value.reason is Reason.CONFIG_INVALID
    return caught.value.message


def test_the_example_says_what_it_means(tmp_path: Path) -> None:
    config = loaded(tmp_path, EXAMPLE)
    parsed = tables.parse(config.handlers)
    assert parsed.policy == {
        "chrony": File(
            Path("/etc/chrony/conf.d/enlist.conf"),
            "template",
            Path("/etc/enlist/chrony.conf.j2"),
            0o640,
            ("chronyd", "-p", "-f", "{file}"),
            ("systemctl", "reload", "chrony"),
            30,
        ),
        "plain": File(Path("/etc/plain.json"), "json"),
        "limits": Exec(("/usr/local/bin/apply-limits", "--strict")),
        "x": EntryPoint("mypackage.module:function"),
    }
    assert parsed.task == {"restart": Exec(("restart-service",), 600), "y": EntryPoint("an-entry-point", 7200)}
    assert config.local_primary is not None
    assert config.local_primary.socket == "/var/lib/enlist/primary/run/upstream.sock"


def test_each_table_becomes_its_handler(tmp_path: Path) -> None:
    config = loaded(tmp_path, EXAMPLE)
    assert {kind: type(each) for kind, each in build_policies(config).items()} == {
        "chrony": FilePolicy,
        "plain": FilePolicy,
        "limits": ExecPolicy,
        "x": EntryPointPolicy,
    }
    assert {kind: type(each) for kind, each in build_tasks(config).items()} == {"restart": ExecTask, "y": EntryPointTask}
    assert not build_policies(loaded(tmp_path, ""))
    assert not build_tasks(loaded(tmp_path, ""))


async def test_what_stood_before_is_kept_by_path_in_the_data_folder(tmp_path: Path) -> None:
    """Another enrolment, or another name of the kind, finds it again."""
    tmp_path.chmod(0o755)
    made, data = tmp_path / "made.json", str(tmp_path / "data")
    table = f'type = "file"\npath = "{made}"\nformat = "json"\n'
    made.write_text("by hand")
    config = msgspec.structs.replace(loaded(tmp_path, f"[handlers.policy.a]\n{table}"), data=data)
    await build_policies(config)["a"].apply({})
    later = msgspec.structs.replace(loaded(tmp_path, f"[handlers.policy.b]\n{table}"), data=data, enrolment="other")
    await build_policies(later)["b"].revert(None)
    assert made.read_text() == "by hand"


FILE = '[handlers.policy.a]\ntype = "file"\npath = "/etc/a"\n'


def test_a_file_without_a_template_gets_the_settings_as_they_are() -> None:
    templated = {"type": "file", "path": "/etc/b", "template": "/etc/enlist/b.j2"}
    parsed = tables.parse({"policy": {"a": {"type": "file", "path": "/etc/a"}, "b": templated}})
    assert [(kind, made.format) for kind, made in parsed.policy.items() if isinstance(made, tables.File)] == [
        ("a", "json"),
        ("b", "template"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "key", "expected"),
    [
        # what a table is called
        ('[handlers.polcy.a]\ntype = "exec"\n', 5, "handlers.polcy.a", "[handlers.policy.KIND]"),
        ("[handlers]\nx = 3\n", 6, "handlers.x", "[handlers.policy.KIND]"),
        ("[handlers]\npolicy = 3\n", 6, "handlers.policy", "table"),
        ("[handlers.policy]\na = 3\n", 6, "handlers.policy.a", "table"),
        ("handlers = 3\n", 5, "handlers", "table"),
        ('[handlers.policy.A]\ntype = "exec"\ncommand = ["a"]\n', 5, "handlers.policy.A", "lower-case"),
        ("[handlers.task.a_b]\n", 5, "handlers.task.a_b", "lower-case"),
        # which keys
        ("[handlers.policy.a]\n", 5, "handlers.policy.a.type", 'one of "file", "exec", "entry-point"'),
        ("[handlers.policy.a]\ntype = 3\n", 6, "handlers.policy.a.type", "not 3"),
        ('[handlers.policy.a]\ntype = "shell"\n', 6, "handlers.policy.a.type", "not shell"),
        ('[handlers.task.a]\ntype = "file"\npath = "/a"\n', 6, "handlers.task.a.type", 'one of "exec", "entry-point", not file'),
        (FILE + 'owner = "root"\n', 8, "handlers.policy.a.owner", "not known; expected one of check, format, mode"),
        ('[handlers.policy.a]\ntype = "file"\n', 5, "handlers.policy.a.path", "missing"),
        ('[handlers.task.a]\ntype = "exec"\n', 5, "handlers.task.a.command", "missing"),
        ('[handlers.task.a]\ntype = "exec"\ncommand = ["a"]\nshell = true\n', 8, "handlers.task.a.shell", "not known"),
        ('[handlers.task.a]\ntype = "entry-point"\n', 5, "handlers.task.a.object", "missing"),
        # files
        *(
            (f'[handlers.policy.a]\ntype = "file"\npath = {path}\n', 7, "handlers.policy.a.path", "")
            for path in ("3", '""', '"a/b"', '"/a/../b"', '"/a\\u0000b"', '"/a//b"', '"/"', '"/a/"', '"//a"', '"/a\\u001b"')
        ),
        (FILE + 'format = "template"\n', 5, "handlers.policy.a.template", "a template is expected"),
        (FILE + 'format = "json"\ntemplate = "/b"\n', 9, "handlers.policy.a.template", "with no other"),
        (FILE + 'template = "b"\n', 8, "handlers.policy.a.template", "beginning with a slash"),
        (FILE + 'format = "yaml"\n', 8, "handlers.policy.a.format", '"template", "json"'),
        *(
            (FILE + f'template = "/b"\nmode = {mode}\n', 9, "handlers.policy.a.mode", "")
            for mode in ("420", '"4755"', '"0o644"', '"rw"', '"0666"', '"0020"', '"0244"', '""', '"99999"')
        ),
        (FILE + 'template = "/b"\ncheck = ["nginx", "-t"]\n', 9, "handlers.policy.a.check", "{file}"),
        (
            FILE + 'template = "/b"\n[handlers.policy.c]\ntype = "file"\nformat = "json"\npath = "/etc/a"\n',
            12,
            "handlers.policy.c.path",
            'the kind "a" writes that file',
        ),
        # commands
        *(
            (f'[handlers.task.a]\ntype = "exec"\ncommand = {command}\n', 7, "handlers.task.a.command", "")
            for command in ('"ls -l"', "[]", '["a", 3]', '[""]', '["a\\u0000"]', '["./a"]', '["bin/a"]', '["../a"]', '[["a"]]')
        ),
        # times and objects
        *(
            (f'[handlers.task.a]\ntype = "exec"\ncommand = ["a"]\ntimeout = {time}\n', 8, "handlers.task.a.timeout", "")
            for time in ("30", '"30"', '"0s"', '"-1s"', '""', "1979-05-27")
        ),
        *(
            (f'[handlers.task.a]\ntype = "entry-point"\nobject = {name}\n', 7, "handlers.task.a.object", "")
            for name in ("3", '""', '"a b"', '"a:b:c"', '"a:"', '":b"', '"a:b()"', '"../a:b"')
        ),
        # the primary on this machine
        ("[local_primary]\n", None, "", "socket"),
        ('[local_primary]\nsocket = "run/x.sock"\n', 6, "local_primary.socket", "beginning with a slash"),
        ('[local_primary]\nsocket = "/a"\nport = 3\n', 7, "local_primary.port", "not known"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused_with_file_line_and_key(
    tmp_path: Path, text: str, line: int | None, key: str, expected: str
) -> None:
    message = refusal(tmp_path, text)
    where = f"{tmp_path}/secondary.toml: " + (f"line {line + 1}: " if line else "")  # counted from behind the format
    assert message.startswith(f"{where}{key}: " if key else where)
    assert expected in message
    assert message.isprintable()


@pytest.mark.parametrize("kind", ['"a\\u001b[31m"', '"../a"', '""', f'"{"a" * 33}"'])
def test_a_kind_is_a_word_and_shown_harmlessly(tmp_path: Path, kind: str) -> None:
    """Attacks rows 35 and 41."""
    message = refusal(tmp_path, f'[handlers.policy.{kind}]\ntype = "exec"\ncommand = ["a"]\n')
    assert "A kind is a word" in message
    assert message.isprintable()
