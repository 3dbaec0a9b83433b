"""Why Enlist says no.

Every refusal, at either end and in every layer, is one `Refused` with a `Reason` for programs and a sentence for people that says
what is wrong and what to do. On the wire it is a gRPC status with `google.rpc.ErrorInfo` (domain `enlist`); `TABLE` below is the
only place where a reason meets a status.

    Exception
    `-- Refused
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

DOMAIN = "enlist"


class Reason(StrEnum):
    """A reason code: stable, in capitals, the same in the JSON of a command and in `ErrorInfo.reason`."""

    # Reaching a primary
    NAME_NOT_FOUND = "NAME_NOT_FOUND"
    UNREACHABLE = "UNREACHABLE"
    SSL_PORT_UNREACHABLE = "SSL_PORT_UNREACHABLE"
    NOT_ENLIST = "NOT_ENLIST"
    TIMED_OUT = "TIMED_OUT"
    CLOCK_SKEW = "CLOCK_SKEW"
    VERSION_INCOMPATIBLE = "VERSION_INCOMPATIBLE"
    # Who it is
    TLS_INTERCEPTED = "TLS_INTERCEPTED"
    IDENTITY_MISMATCH = "IDENTITY_MISMATCH"
    IDENTITY_CHANGED = "IDENTITY_CHANGED"
    IDENTITY_NOT_CONFIRMED = "IDENTITY_NOT_CONFIRMED"
    # Asking to join
    ACCOUNT_UNKNOWN = "ACCOUNT_UNKNOWN"
    API_KEY_INVALID = "API_KEY_INVALID"
    API_KEY_EXPIRED = "API_KEY_EXPIRED"
    API_KEY_USED_UP = "API_KEY_USED_UP"
    API_KEY_NETWORK = "API_KEY_NETWORK"
    API_KEY_REQUIRED = "API_KEY_REQUIRED"
    TOO_MANY_ATTEMPTS = "TOO_MANY_ATTEMPTS"
    TOO_MANY_PENDING = "TOO_MANY_PENDING"
    PROOF_INVALID = "PROOF_INVALID"
    CHALLENGE_EXPIRED = "CHALLENGE_EXPIRED"
    KEY_UNSUITABLE = "KEY_UNSUITABLE"
    # Where a server stands
    SERVER_UNKNOWN = "SERVER_UNKNOWN"
    SERVER_PENDING = "SERVER_PENDING"
    SERVER_DENIED = "SERVER_DENIED"
    SERVER_SUSPENDED = "SERVER_SUSPENDED"
    SERVER_REVOKED = "SERVER_REVOKED"
    SERVER_EXPIRED = "SERVER_EXPIRED"
    SERVER_WITHDRAWN = "SERVER_WITHDRAWN"
    SERVER_DEPARTED = "SERVER_DEPARTED"
    SERVER_REMOVED = "SERVER_REMOVED"
    CERTIFICATE_EXPIRED = "CERTIFICATE_EXPIRED"
    CERTIFICATE_INVALID = "CERTIFICATE_INVALID"
    LINK_REPLACED = "LINK_REPLACED"
    LINK_VIOLATION = "LINK_VIOLATION"
    # Deciding
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    AMBIGUOUS_NAME = "AMBIGUOUS_NAME"
    STATE_FORBIDS = "STATE_FORBIDS"
    CODE_MISMATCH = "CODE_MISMATCH"
    NOT_LOGGED_ON = "NOT_LOGGED_ON"
    NOT_ALLOWED = "NOT_ALLOWED"
    # Groups, documents and tasks
    GROUP_NOT_EMPTY = "GROUP_NOT_EMPTY"
    WOULD_LOOP = "WOULD_LOOP"
    BEQUEST_REQUIRED = "BEQUEST_REQUIRED"
    POLICY_INVALID = "POLICY_INVALID"
    SETTING_LOCKED = "SETTING_LOCKED"
    DOCUMENT_TOO_LARGE = "DOCUMENT_TOO_LARGE"
    KIND_UNSUPPORTED = "KIND_UNSUPPORTED"
    SCHEDULE_INVALID = "SCHEDULE_INVALID"
    SET_INVALID = "SET_INVALID"
    SET_STALE = "SET_STALE"
    SET_CONFLICT = "SET_CONFLICT"
    ORIGINS_FULL = "ORIGINS_FULL"
    ORIGINS_UNREADABLE = "ORIGINS_UNREADABLE"
    # The primary's own troubles
    OVERLOADED = "OVERLOADED"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    STORAGE_FULL = "STORAGE_FULL"
    STORAGE_FAILED = "STORAGE_FAILED"
    STORAGE_CORRUPT = "STORAGE_CORRUPT"
    JOURNAL_BROKEN = "JOURNAL_BROKEN"
    INTERNAL = "INTERNAL"
    # This machine
    CONFIG_INVALID = "CONFIG_INVALID"
    CONFIG_MISSING = "CONFIG_MISSING"
    FORMAT_OLD = "FORMAT_OLD"
    FILE_UNSAFE = "FILE_UNSAFE"
    FILE_FAILED = "FILE_FAILED"
    FOLDER_IN_USE = "FOLDER_IN_USE"
    PORT_IN_USE = "PORT_IN_USE"
    ALREADY_RUNNING = "ALREADY_RUNNING"
    NOT_RUNNING = "NOT_RUNNING"
    IDENTITY_COPIED = "IDENTITY_COPIED"
    NO_TERMINAL = "NO_TERMINAL"
    INTERRUPTED = "INTERRUPTED"


class Row(NamedTuple):
    """What a reason means to a program: the name of its gRPC status, and whether the same attempt may succeed later by itself."""

    status: str
    retry: bool


_UNAVAILABLE = Row("UNAVAILABLE", retry=True)
_PRECONDITION = Row("FAILED_PRECONDITION", retry=False)
_DENIED = Row("PERMISSION_DENIED", retry=False)
_INVALID = Row("INVALID_ARGUMENT", retry=False)
_UNAUTHENTICATED = Row("UNAUTHENTICATED", retry=False)

TABLE: Mapping[Reason, Row] = MappingProxyType(
    {
        Reason.NAME_NOT_FOUND: _UNAVAILABLE,
        Reason.UNREACHABLE: _UNAVAILABLE,
        Reason.SSL_PORT_UNREACHABLE: _UNAVAILABLE,
        Reason.NOT_ENLIST: _PRECONDITION,
        Reason.TIMED_OUT: Row("DEADLINE_EXCEEDED", retry=True),
        Reason.CLOCK_SKEW: _PRECONDITION,
        Reason.VERSION_INCOMPATIBLE: _PRECONDITION,
        Reason.TLS_INTERCEPTED: _UNAUTHENTICATED,
        Reason.IDENTITY_MISMATCH: _UNAUTHENTICATED,
        Reason.IDENTITY_CHANGED: _UNAUTHENTICATED,
        Reason.IDENTITY_NOT_CONFIRMED: _UNAUTHENTICATED,
        Reason.ACCOUNT_UNKNOWN: Row("NOT_FOUND", retry=False),
        Reason.API_KEY_INVALID: _DENIED,
        Reason.API_KEY_EXPIRED: _DENIED,
        Reason.API_KEY_USED_UP: _DENIED,
        Reason.API_KEY_NETWORK: _DENIED,
        Reason.API_KEY_REQUIRED: _DENIED,
        Reason.TOO_MANY_ATTEMPTS: Row("RESOURCE_EXHAUSTED", retry=True),
        Reason.TOO_MANY_PENDING: Row("RESOURCE_EXHAUSTED", retry=True),
        Reason.PROOF_INVALID: _UNAUTHENTICATED,
        Reason.CHALLENGE_EXPIRED: Row("UNAUTHENTICATED", retry=True),
        Reason.KEY_UNSUITABLE: _INVALID,
        Reason.SERVER_UNKNOWN: Row("NOT_FOUND", retry=False),
        Reason.SERVER_PENDING: Row("PERMISSION_DENIED", retry=True),
        Reason.SERVER_DENIED: _DENIED,
        Reason.SERVER_SUSPENDED: Row("PERMISSION_DENIED", retry=True),
        Reason.SERVER_REVOKED: _DENIED,
        Reason.SERVER_EXPIRED: Row("PERMISSION_DENIED", retry=True),
        Reason.SERVER_WITHDRAWN: _DENIED,
        Reason.SERVER_DEPARTED: _DENIED,
        Reason.SERVER_REMOVED: _DENIED,
        Reason.CERTIFICATE_EXPIRED: Row("UNAUTHENTICATED", retry=True),
        Reason.CERTIFICATE_INVALID: _UNAUTHENTICATED,
        Reason.LINK_REPLACED: Row("ABORTED", retry=True),
        Reason.LINK_VIOLATION: _INVALID,
        Reason.INVALID_ARGUMENT: _INVALID,
        Reason.NOT_FOUND: Row("NOT_FOUND", retry=False),
        Reason.ALREADY_EXISTS: Row("ALREADY_EXISTS", retry=False),
        Reason.AMBIGUOUS_NAME: _PRECONDITION,
        Reason.STATE_FORBIDS: _PRECONDITION,
        Reason.CODE_MISMATCH: _PRECONDITION,
        Reason.NOT_LOGGED_ON: _UNAUTHENTICATED,
        Reason.NOT_ALLOWED: _DENIED,
        Reason.GROUP_NOT_EMPTY: _PRECONDITION,
        Reason.WOULD_LOOP: _PRECONDITION,
        Reason.BEQUEST_REQUIRED: _PRECONDITION,
        Reason.POLICY_INVALID: _INVALID,
        Reason.SETTING_LOCKED: _PRECONDITION,
        Reason.DOCUMENT_TOO_LARGE: _INVALID,
        Reason.KIND_UNSUPPORTED: _PRECONDITION,
        Reason.SCHEDULE_INVALID: _INVALID,
        Reason.SET_INVALID: _UNAUTHENTICATED,
        Reason.SET_STALE: _PRECONDITION,
        Reason.SET_CONFLICT: _PRECONDITION,
        Reason.ORIGINS_FULL: _PRECONDITION,
        Reason.ORIGINS_UNREADABLE: _PRECONDITION,
        Reason.OVERLOADED: Row("RESOURCE_EXHAUSTED", retry=True),
        Reason.SHUTTING_DOWN: _UNAVAILABLE,
        Reason.STORAGE_FULL: Row("RESOURCE_EXHAUSTED", retry=True),
        Reason.STORAGE_FAILED: _UNAVAILABLE,
        Reason.STORAGE_CORRUPT: Row("DATA_LOSS", retry=False),
        Reason.JOURNAL_BROKEN: Row("DATA_LOSS", retry=False),
        Reason.INTERNAL: Row("INTERNAL", retry=True),
        Reason.CONFIG_INVALID: _INVALID,
        Reason.CONFIG_MISSING: _PRECONDITION,
        Reason.FORMAT_OLD: _PRECONDITION,
        Reason.FILE_UNSAFE: _PRECONDITION,
        Reason.FILE_FAILED: Row("FAILED_PRECONDITION", retry=True),
        Reason.FOLDER_IN_USE: _PRECONDITION,
        Reason.PORT_IN_USE: _PRECONDITION,
        Reason.ALREADY_RUNNING: Row("FAILED_PRECONDITION", retry=True),
        Reason.NOT_RUNNING: _UNAVAILABLE,
        Reason.IDENTITY_COPIED: _PRECONDITION,
        Reason.NO_TERMINAL: _PRECONDITION,
        Reason.INTERRUPTED: Row("CANCELLED", retry=True),
    }
)


class Refused(Exception):
    """A no, with its reason code and a sentence for people; the sentence never holds a secret."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    @property
    def retry(self) -> bool:
        """Whether the same attempt may succeed later by itself."""
        return TABLE[self.reason].retry

    def __str__(self) -> str:
        return self.message
