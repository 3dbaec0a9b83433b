"""What holds for every test."""

from __future__ import annotations

import os
import signal

from hypothesis import settings

# pexpect forks this process, which may be in the middle of a call; the child only ever executes another program, so gRPC's own
# handlers around fork (fork_posix) have nothing to save there, and abort the child where calls are under way.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# The same examples in every run: a failure is this change's, and can be run again. Two shared cores make no deadline true.
settings.register_profile("enlist", derandomize=True, deadline=None)
settings.load_profile("enlist")

# A shell without job control starts what stands before `&` with Ctrl-C ignored, and programs inherit that: those that tests
# interrupt would go on.
signal.signal(signal.SIGINT, signal.default_int_handler)
