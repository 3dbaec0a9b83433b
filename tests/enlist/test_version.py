"""The version in the code is the version of the distribution."""

from importlib import metadata

import enlist


def test_the_version_in_the_code_is_the_distributions() -> None:
    assert enlist.__version__ == metadata.version("enlist")
