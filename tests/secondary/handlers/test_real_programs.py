"""Policies of real programs: chrony and nginx say themselves what is right, and the last good file stays."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from enlist_secondary.handlers.file import FilePolicy
from enlist_secondary.handlers.interface import HandlerFailed
from enlist_secondary.handlers.tables import File
from tests.secondary.handlers.programs import script
from tests.support.means import need

SBIN = "/usr/sbin:/sbin:/usr/bin:/bin"

CHRONY = """\
{% for server in servers %}
server {{ server }} iburst
{% endfor %}
makestep {{ step }} 3
"""

NGINX = """\
pid {{ folder }}/nginx.pid;
error_log {{ folder }}/error.log;
events {}
http {
    access_log off;
    client_body_temp_path {{ folder }}/body;
    proxy_temp_path {{ folder }}/proxy;
    fastcgi_temp_path {{ folder }}/fastcgi;
    uwsgi_temp_path {{ folder }}/uwsgi;
    scgi_temp_path {{ folder }}/scgi;
    server {
        listen unix:{{ folder }}/http.sock;
        keepalive_timeout {{ keepalive }};
    }
}
"""


def needed(program: str, package: str) -> str:
    path = shutil.which(program, path=SBIN)
    need(path is not None, f"{program} is missing (Debian: {package})")
    return str(path)


def handler(folder: Path, template: str, check: tuple[str, ...]) -> FilePolicy:
    folder.chmod(0o755)
    (folder / "template.j2").write_text(template)
    reload = script(folder / "reload", f"cat {folder}/program.conf > {folder}/loaded")
    configured = File(folder / "program.conf", "template", folder / "template.j2", 0o644, check, (reload,), 60)
    return FilePolicy(configured, folder / "kept")


async def stays_good(policy: FilePolicy, folder: Path, good: dict[str, Any], bad: dict[str, Any], says: str) -> str:
    """Good settings are put in force, bad ones refused in the program's own words; returns what stands."""
    await policy.apply(good)
    text = (folder / "program.conf").read_text()
    assert (folder / "loaded").read_text() == text
    with pytest.raises(HandlerFailed) as failed:
        await policy.apply({**good, **bad})
    assert says in failed.value.message
    assert (folder / "program.conf").read_text() == (folder / "loaded").read_text() == text
    assert await policy.changed() is None
    return text


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"step": "soon"}, "Could not parse makestep directive at line"),
        ({"servers": ["ntp.example", "a b c"]}, "Could not parse server directive at line"),
        ({"servers": ["ntp.example\nallow all"]}, "a value with a line end"),
    ],
)
async def test_chrony_decides_what_a_chrony_policy_may_say(tmp_path: Path, bad: dict[str, Any], says: str) -> None:
    """Issue 3: a policy that writes a chrony configuration, checks it with that program, and goes back (attacks row 36)."""
    policy = handler(tmp_path, CHRONY, (needed("chronyd", "chrony"), "-p", "-f", "{file}"))
    text = await stays_good(policy, tmp_path, {"servers": ["ntp1.example", "ntp2.example"], "step": 1.5}, bad, says)
    assert "server ntp2.example iburst\n" in text
    assert "makestep 1.5 3\n" in text


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"keepalive": "soon"}, '"keepalive_timeout" directive invalid value'),
        ({"keepalive": "1;} bogus {"}, 'unknown directive "bogus"'),
        ({"keepalive": "1;\nautoindex on"}, "a value with a line end"),
    ],
)
async def test_nginx_decides_what_an_nginx_policy_may_say(tmp_path: Path, bad: dict[str, Any], says: str) -> None:
    """The same with nginx, whose directives end with a semicolon; only the program can tell."""
    policy = handler(tmp_path, NGINX, (needed("nginx", "nginx-light"), "-q", "-t", "-c", "{file}"))
    good = {"folder": str(tmp_path), "keepalive": "75s"}
    assert "keepalive_timeout 75s;" in await stays_good(policy, tmp_path, good, bad, says)
