"""Structured logs on standard error: one line per event, `time level logger event key=value ...`, nothing unescaped."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping

from enlist.runtime.terminal import escape, moment

# Whatever has the form of an API key or a token is blacked out, should a message ever quote one.
_SECRET = re.compile(r"enl[ut]?_([a-z2-7]{10})_[a-z2-7]{16,}")


class LineFormatter(logging.Formatter):
    """One printable line for each record: time, level, logger, message, then the fields as `key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`; secrets are blacked out."""
        parts = [moment(int(record.created)), record.levelname.lower(), record.name, record.getMessage()]
        fields: Mapping[str, object] = getattr(record, "fields", {})
        parts += [f"{key}={_value(value)}" for key, value in fields.items()]
        if record.exc_info and record.exc_info[1] is not None:
            parts.append(f"error={_value(self.formatException(record.exc_info))}")
        return escape(redact(" ".join(parts)))


def _value(value: object) -> str:
    """A value as it stands behind `key=`: in quotes where it could be taken for more than one value, or for another field."""
    text = str(value)
    if text and not any(c in ' ="\\\n' for c in text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def redact(text: str) -> str:
    """The text with the secret part of every API key and token blacked out."""
    return _SECRET.sub(r"enl_\1_***", text)


def set_up(level: int = logging.INFO) -> None:
    """Sends this process's logs to standard error. Only a daemon's `main` calls this."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class Log:
    """A named log whose events carry fields: `log.info("link opened", server=..., account=...)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def info(self, event: str, **fields: object) -> None:
        """Something that happened as it should."""
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: object) -> None:
        """Something an administrator may want to know."""
        self._logger.warning(event, extra={"fields": fields})

    def alarm(self, event: str, **fields: object) -> None:
        """Something an administrator must look at: an identity changed, storage failed."""
        self._logger.critical(event, extra={"fields": fields})

    def fault(self, event: str, error: BaseException, **fields: object) -> None:
        """Something nobody foresaw, with its traceback; only logs ever hold one."""
        self._logger.error(event, exc_info=error, extra={"fields": fields})
