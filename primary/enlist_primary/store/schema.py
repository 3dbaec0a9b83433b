"""The tables, as named steps that are applied once each, in this order, and never edited after a release.

One text for every engine: the types are `text`, `bigint` and `bytea` only. SQLite takes any name for a type; `bytea`
gets its NUMERIC affinity, which leaves bytes as they are (it would turn a *text* of digits into a number, so bytes
columns are given bytes). Times are unix seconds. No constraint is deferred: whatever a decision breaks must fail inside
its own savepoint, never in the COMMIT that it shares with others.
"""

from __future__ import annotations

from typing import NamedTuple


class Step(NamedTuple):
    """One change of the schema: a name that is kept for ever, and its DDL."""

    name: str
    ddl: str


_ENROLMENT = """
-- A tenant. head and head_hash are its journal's newest entry; the row is the lock that serialises its decisions.
-- The primary's own decisions belong to the reserved account '.'.
CREATE TABLE account (
    domain text NOT NULL PRIMARY KEY,
    head bigint NOT NULL DEFAULT 0,
    head_hash bytea NOT NULL,                   -- without entries: model.journal.genesis(domain)
    contact text,
    default_api_key bigint NOT NULL DEFAULT 1, -- 1: servers may ask without an API key
    created_at bigint NOT NULL
);

-- A node of the account's tree. The root has no parent and is named '/'.
CREATE TABLE server_group (
    account text NOT NULL REFERENCES account (domain),
    id text NOT NULL,
    parent text,
    name text NOT NULL,
    PRIMARY KEY (account, id),
    UNIQUE (account, parent, name),
    FOREIGN KEY (account, parent) REFERENCES server_group (account, id)
);
-- UNIQUE above takes no two nulls for equal, so the one root needs its own rule.
CREATE UNIQUE INDEX server_group_root ON server_group (account) WHERE parent IS NULL;

CREATE TABLE server (
    account text NOT NULL REFERENCES account (domain),
    id text NOT NULL,
    name text,                                  -- none: an invitation for a server that will name itself
    group_id text NOT NULL,
    state text NOT NULL,
    key text,                                   -- SHA-256 of the public key, hex; none until an invitation is taken up
    public_key bytea,                           -- SubjectPublicKeyInfo, DER
    since bigint NOT NULL,                      -- when the state began
    source text,                                -- the address it asked from
    server_address text,                        -- where clients find it
    version text,
    created_at bigint NOT NULL,
    expires_at bigint,
    asked_with text,                            -- 'api-key/ID', or 'default'
    revision bigint NOT NULL DEFAULT 0,         -- journal number of the last decision about it, 0 if there was none
    reason text,
    PRIMARY KEY (account, id),
    FOREIGN KEY (account, group_id) REFERENCES server_group (account, id)
);
CREATE UNIQUE INDEX server_key ON server (account, key);
-- Only the few that somebody has yet to decide about, or nobody ever did: the many that are trusted cost these indexes nothing.
-- The first holds all that the caps ask about, which is asked with every stranger's request.
CREATE INDEX server_waiting ON server (account, source, state, expires_at, since, revision, key)
    WHERE state = 'pending' OR state = 'withdrawn' AND revision = 0;
CREATE INDEX server_overdue ON server (account, expires_at) WHERE state IN ('pending', 'invited');
CREATE INDEX server_undecided ON server (since) WHERE state IN ('expired', 'withdrawn') AND revision = 0;

-- The vendor's API keys stand under the account '.'.
CREATE TABLE api_key (
    account text NOT NULL REFERENCES account (domain),
    id text NOT NULL,
    secret_hash bytea NOT NULL,                 -- SHA-256
    kind text NOT NULL,                         -- 'restricted' or 'full'
    group_id text,                              -- where servers that ask with it will stand
    server_id text,                             -- the invitation it belongs to
    uses bigint NOT NULL DEFAULT 0,
    max_uses bigint,
    networks text,                              -- CIDRs, separated by commas; none: from anywhere
    expires_at bigint,
    created_at bigint NOT NULL,
    revoked_at bigint,
    note text,
    PRIMARY KEY (account, id),
    FOREIGN KEY (account, group_id) REFERENCES server_group (account, id),
    FOREIGN KEY (account, server_id) REFERENCES server (account, id)
);

CREATE INDEX api_key_server ON api_key (account, server_id);  -- or each server that is forgotten would mean a look at every API key

CREATE TABLE user_account (
    id text NOT NULL PRIMARY KEY,
    name text NOT NULL,
    role text NOT NULL,
    account text NOT NULL REFERENCES account (domain),
    token_hash bytea NOT NULL UNIQUE,           -- SHA-256
    created_at bigint NOT NULL
);

CREATE TABLE journal (
    account text NOT NULL REFERENCES account (domain),
    number bigint NOT NULL,                     -- from 1, without gaps
    body text NOT NULL,                         -- canonical JSON
    hash bytea NOT NULL,                        -- SHA-256 of the previous entry's hash and this body
    PRIMARY KEY (account, number)
);

-- What was seen, not decided: overwritten in place, and may be lost in a crash without harm.
CREATE TABLE server_observation (
    account text NOT NULL,
    id text NOT NULL,
    connected_at bigint,
    disconnected_at bigint,
    address text,
    version text,
    server_address text,                        -- where clients find it, as it last said
    PRIMARY KEY (account, id),
    FOREIGN KEY (account, id) REFERENCES server (account, id) ON DELETE CASCADE
);

CREATE TABLE counter (
    account text NOT NULL REFERENCES account (domain),
    name text NOT NULL,
    count bigint NOT NULL,
    last_at bigint NOT NULL,
    last_source text,
    PRIMARY KEY (account, name)
);
"""

STEPS = (Step("enrolment", _ENROLMENT),)
