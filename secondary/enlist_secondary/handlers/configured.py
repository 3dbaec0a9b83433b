"""Makes the handlers that an owner configured."""

from __future__ import annotations

import hashlib
from pathlib import Path

from enlist_secondary.config import SecondaryConfig
from enlist_secondary.handlers import tables
from enlist_secondary.handlers.entry_point import EntryPointPolicy, EntryPointTask
from enlist_secondary.handlers.exec import ExecPolicy, ExecTask
from enlist_secondary.handlers.file import FilePolicy
from enlist_secondary.handlers.interface import PolicyHandler, TaskHandler
from enlist_secondary.handlers.tables import Configured, EntryPoint, Exec, File


def build_policies(config: SecondaryConfig) -> dict[str, PolicyHandler]:
    """The handlers of policies, by kind. What file handlers keep is this machine's, whichever primary it is enrolled with."""
    return {kind: _policy(each, config.handler_files) for kind, each in tables.parse(config.handlers).policy.items()}


def build_tasks(config: SecondaryConfig) -> dict[str, TaskHandler]:
    """The handlers of tasks, by kind."""
    return {kind: _task(each) for kind, each in tables.parse(config.handlers).task.items()}


def _policy(each: Configured, folder: Path) -> PolicyHandler:
    match each:
        case File():
            # By the path and not by the kind: what stood there before the first policy is kept, whatever the kind is called later.
            return FilePolicy(each, folder / hashlib.sha256(str(each.path).encode()).hexdigest()[:16])
        case Exec():
            return ExecPolicy(each)
        case EntryPoint():
            return EntryPointPolicy(each)


def _task(each: Exec | EntryPoint) -> TaskHandler:
    return ExecTask(each) if isinstance(each, Exec) else EntryPointTask(each)
