"""The owner's template with a primary's values in it: no value begins a line (attacks row 36)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enlist_secondary.handlers import templates
from enlist_secondary.handlers.interface import HandlerFailed


def render(folder: Path, template: str, **settings: Any) -> str:
    path = folder / "template.j2"
    path.write_text(template)
    return templates.render(path, settings).decode()


def failure(folder: Path, template: str, **settings: Any) -> str:
    with pytest.raises(HandlerFailed) as failed:
        render(folder, template, **settings)
    return failed.value.message


def test_settings_are_variables_and_the_text_stays_as_it_is(tmp_path: Path) -> None:
    template = "{% for each in servers %}server {{ each.name }} <&>\n{% endfor %}{{ settings['limit'] }} {{ on }} {{ nested }}\n\n"
    text = render(tmp_path, template, servers=[{"name": "a"}, {"name": "ü & <b>"}], limit=3, on=True, nested={"x": [1, "y"]})
    assert text == "server a <&>\nserver ü & <b> <&>\n3 True {'x': [1, 'y']}\n\n"


@pytest.mark.parametrize(
    "value", ["a\nserver evil", "a\rb", "a\0b", "a\x1b[31m", "a\tb", "a\x85b", "a\u2028b", "a\u2029b", "\n"], ids=repr
)
@pytest.mark.parametrize(
    "template",
    [
        "server {{ value }}\n",
        "server {{ value | upper }} x\n",
        "server {{ 'x' ~ value }}\n",
        "{% for each in values %}server {{ each }}\n{% endfor %}",
        "{% set copy = value %}\n{{ copy }}",
        "{% macro line(of) %}server {{ of }}{% endmacro %}\n\n{{ line(value) }}",
        "{% filter upper %}{{ value }}{% endfilter %}",
        "{% for each in value %}{{ each }}{% endfor %}",
        "{{ values | join(' ') }}",
        "{{ '%s' | format(value) }}",
        "{{ '{}'.format(value) }}",
        "{{ names | first }}",
    ],
)
def test_a_value_that_would_begin_a_line_is_refused_where_it_is_put_in(tmp_path: Path, template: str, value: str) -> None:
    """Attacks row 36."""
    message = failure(tmp_path, template, value=value, values=[value], names={value: 1})
    assert "a value with a line end or a control character" in message
    assert value not in message


def test_a_value_that_would_begin_a_line_harms_nobody_where_it_is_not_put_in(tmp_path: Path) -> None:
    assert render(tmp_path, "{{ a | length }} {{ b }} {{ c | tojson }}", a="x\ny", b=["x\ny"], c="x\ny") == "3 ['x\\ny'] \"x\\ny\""


def test_a_macro_of_several_lines_is_called_as_a_block(tmp_path: Path) -> None:
    template = "{% macro two(of) %}a {{ of }}\nb {{ of }}\n{{ caller() }}{% endmacro %}{% call two(x) %}{% endcall %}"
    assert render(tmp_path, template, x="1") == "a 1\nb 1\n"


@pytest.mark.parametrize(
    ("template", "line", "what"),
    [
        ("a\n\n{{ missing }}\n", 3, "'missing' is undefined"),
        ("a\n{{ x.missing }}\n", 2, "has no attribute 'missing'"),
        ("a\n{% if missing %}x{% endif %}\n", 2, "'missing' is undefined"),
        ("a\n{% fro x in y %}\n", 2, "unknown tag 'fro'"),
        ("a\n{{ x.a + 1 }}\n", 2, "TypeError"),
        ("a\nb {{ bad }}\n", 2, "line end"),
        ("{{ x.__class__.__mro__ }}", 1, "unsafe"),
        ("{{ x.update({}) }}", 1, "unsafe"),
        ("{% include '/etc/passwd' %}", 1, "no loader"),
        ("{% for i in range(9999999) %}x{% endfor %}", 1, "Range too big"),
    ],
)
def test_what_is_wrong_in_a_template_is_told_with_its_line(tmp_path: Path, template: str, line: int, what: str) -> None:
    """A setting that is missing is a failure, never an empty place; and a template reaches nothing but its settings."""
    message = failure(tmp_path, template, x={"a": "text"}, bad="a\nb")
    assert message.startswith(f"{tmp_path}/template.j2: line {line}: ")
    assert what in message


def test_a_file_that_would_be_too_large_is_given_up_while_it_grows(tmp_path: Path) -> None:
    template = "{% for a in xs %}{% for b in xs %}{% for c in xs %}{{ text }}{% endfor %}{% endfor %}{% endfor %}"
    assert "larger than 1 MiB" in failure(tmp_path, template, xs=list(range(1000)), text="x" * 100_000)


def test_a_setting_named_like_the_variable_of_all_does_not_hide_it(tmp_path: Path) -> None:
    assert render(tmp_path, "{{ settings.a }}{{ range(2) | list }}", settings=1, a=2) == "2[0, 1]"


@pytest.mark.parametrize("planted", ["symlink", "open to all", "missing", "folder", "not text"])
def test_a_planted_template_is_not_used(tmp_path: Path, planted: str) -> None:
    """Attacks row 35."""
    path, other = tmp_path / "template.j2", tmp_path / "other"
    other.write_text("planted")
    if planted == "symlink":
        path.symlink_to(other)
    elif planted == "folder":
        path.mkdir()
    elif planted != "missing":
        path.write_bytes(b"\xff" if planted == "not text" else b"planted")
        path.chmod(0o666 if planted == "open to all" else 0o600)
    with pytest.raises(HandlerFailed) as failed:
        templates.render(path, {})
    assert str(path) in failed.value.message
