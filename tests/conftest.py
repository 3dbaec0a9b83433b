"""What holds for every test."""

from __future__ import annotations

from hypothesis import settings

# The same examples in every run: a failure is this change's, and can be run again. Two shared cores make no deadline true.
settings.register_profile("enlist", derandomize=True, deadline=None)
settings.load_profile("enlist")
