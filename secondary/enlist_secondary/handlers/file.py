"""`type = "file"`: the settings become a file that a program of the owner's checks before, and loads after, it takes its place."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from enlist.reasons import Refused
from enlist.runtime import files
from enlist.runtime.threads import to_the_end
from enlist_secondary.handlers import process, templates
from enlist_secondary.handlers.interface import HandlerFailed
from enlist_secondary.handlers.placing import Place
from enlist_secondary.handlers.tables import POLICY_TIMEOUT, File
from enlist_secondary.handlers.workers import Workers

T = TypeVar("T")

STAGED = "{file}"
"""Stands in `check` for the new file before it takes its place."""


class FilePolicy:
    """Writes one file. Render, `check`, rename, `reload`: what fails before the rename touched nothing, and after a reload that
    failed the file before is put back and loaded again."""

    restores = True

    def __init__(self, configured: File, folder: Path) -> None:
        """`folder` keeps what stood at the path before; it is for this path alone."""
        self._configured = configured
        self._limit = configured.timeout or POLICY_TIMEOUT
        self._place = Place(configured.path, folder)
        self._workers = Workers()

    async def apply(self, settings: dict[str, Any]) -> None:
        """Puts the file made from these settings in force."""
        content = await self._content(settings)
        try:
            staged = await self._do(self._place.stage, content, self._configured.mode)
            await self._run([word.replace(STAGED, str(staged)) for word in self._configured.check])
        except (HandlerFailed, asyncio.CancelledError):
            self._place.unstage()
            raise
        await self._do(self._place.take)
        await self._load()
        await self._do(self._place.confirm)

    async def revert(self, settings: dict[str, Any] | None) -> None:
        """The file of the settings before; None: what stood there before the first policy, or no file if none did."""
        if settings is not None:
            await self.apply(settings)
        elif await self._do(self._place.take_original):
            await self._load()
            await self._do(self._place.forget)

    async def changed(self) -> str | None:
        """What somebody did to the file since."""
        try:
            return await to_the_end(self._place.changed)
        except Refused as refused:  # others may write to it now, say
            return refused.message
        except OSError as error:
            return files.failed(self._configured.path, error).message

    async def _content(self, settings: dict[str, Any]) -> bytes:
        try:
            return bytes(await self._workers.call(_rendered, self._configured, settings, limit=self._limit))
        except TimeoutError:
            raise HandlerFailed(f"{self._configured.template} was not rendered within {self._limit} s.") from None

    async def _load(self) -> None:
        """Has the file that took its place loaded, or puts the one before back and has that loaded."""
        try:
            await self._run(self._configured.reload)
        except HandlerFailed as failed:
            raise HandlerFailed(f"{await self._went_back()} {failed.message}") from None

    async def _went_back(self) -> str:
        try:
            await self._do(self._place.go_back)
        except HandlerFailed as failed:
            return f"What was there before could not be put back: {failed.message}"
        try:
            await self._run(self._configured.reload)
        except HandlerFailed:
            return "What was there before was put back, and could not be loaded again either."
        return "What was there before was put back and loaded again."

    async def _run(self, command: list[str] | tuple[str, ...]) -> None:
        if command:
            ended = await process.run(command, b"", self._limit)
            if ended.problem:
                raise HandlerFailed(ended.explained)

    async def _do(self, work: Callable[..., T], *arguments: Any) -> T:
        try:
            return await to_the_end(work, *arguments)
        except Refused as refused:
            raise HandlerFailed(refused.message) from None
        except OSError as error:
            raise HandlerFailed(files.failed(self._configured.path, error).message) from None


def _rendered(configured: File, settings: dict[str, Any]) -> bytes:
    if configured.template is not None:
        return templates.render(configured.template, settings)
    return templates.bounded(iter([json.dumps(settings, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False), "\n"]))
