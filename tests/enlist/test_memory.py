"""Giving program code back: less is resident, and everything still runs."""

from __future__ import annotations

import hashlib
import subprocess
import sys

CODE = """
import hashlib, ssl, asyncio, grpc.aio
from cryptography.hazmat.primitives.asymmetric import ec
import psutil
from enlist.runtime import memory

before = psutil.Process().memory_info().rss
memory.give_back()
after = psutil.Process().memory_info().rss
ec.generate_private_key(ec.SECP256R1())
asyncio.run(asyncio.sleep(0))
print(before - after, hashlib.sha256(b"still here").hexdigest())
"""


def test_code_is_given_back_and_comes_back_when_it_is_needed() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=True)
    less, digest = done.stdout.split()
    assert int(less) > 4 * 1024 * 1024
    assert digest == hashlib.sha256(b"still here").hexdigest()
