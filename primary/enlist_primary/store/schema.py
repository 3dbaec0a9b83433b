"""The tables, as named steps that are applied once each, in this order, and never edited after a release.

Version 0.2 begins with one baseline step; a database of 0.1 is not read.

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


_BASELINE = """
-- A tenant. head and head_hash are its journal's newest entry; the row is the lock that serialises its decisions.
-- The primary's own decisions belong to the reserved account '.'.
CREATE TABLE account (
    domain text NOT NULL PRIMARY KEY,
    head bigint NOT NULL DEFAULT 0,
    head_hash bytea NOT NULL,                   -- without entries: model.journal.genesis(domain)
    change bigint NOT NULL DEFAULT 0,           -- number of the last row in the change log
    contact text,
    default_api_key bigint NOT NULL DEFAULT 1,  -- 1: servers may ask without an API key
    landing_group text,                         -- where servers land that nobody has given another place; none: the root group
    -- The number of the last decision that changed what any server of the account must get.
    desired bigint NOT NULL DEFAULT 0,
    -- Grows when the primary's data was restored: the first half of every set version. The primary's own, on the account '.'.
    epoch bigint NOT NULL DEFAULT 1,
    created_at bigint NOT NULL
);

-- A node of the account's tree. The root has no parent and is named '/'.
CREATE TABLE server_group (
    account text NOT NULL REFERENCES account (domain),
    id text NOT NULL,
    parent text,
    name text NOT NULL,
    -- Its maintenance window: a cron expression, seconds, and a time zone (none: UTC).
    window_start text,
    window_seconds bigint,
    window_zone text,
    window_revision bigint NOT NULL DEFAULT 0,
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
    -- An intermediate: its host runs a primary, which is a child of this one if it may be.
    may_have_secondaries bigint NOT NULL DEFAULT 0,
    child_primary_id text,                             -- primary id of the child; none: there is no child
    cross_certificate bytea,                    -- this primary's authority over that key, DER
    bequest text,                               -- of a removed one: 'keep', 'freeze' or 'delete'
    PRIMARY KEY (account, id),
    FOREIGN KEY (account, group_id) REFERENCES server_group (account, id)
);
CREATE UNIQUE INDEX server_key ON server (account, key);
CREATE INDEX server_name ON server (account, name, id);
-- Only the few that somebody has yet to decide about, or nobody ever did: the many that are trusted cost these indexes nothing.
-- The first holds all that the caps ask about, which is asked with every stranger's request.
CREATE INDEX server_waiting ON server (account, source, state, expires_at, since, revision, key)
    WHERE state = 'pending' OR state = 'withdrawn' AND revision = 0;
CREATE INDEX server_overdue ON server (account, expires_at) WHERE state IN ('pending', 'invited');
CREATE INDEX server_undecided ON server (since) WHERE state IN ('expired', 'withdrawn') AND revision = 0;

CREATE TABLE server_label (
    account text NOT NULL,
    server_id text NOT NULL,
    label text NOT NULL,
    PRIMARY KEY (account, server_id, label),
    FOREIGN KEY (account, server_id) REFERENCES server (account, id) ON DELETE CASCADE
);

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

-- What changed, for everything that keeps a copy of rows in memory: without gaps from account.change backwards, trimmed from the
-- beginning.
CREATE TABLE change (
    account text NOT NULL REFERENCES account (domain),
    number bigint NOT NULL,
    subject text NOT NULL,                      -- 'servers/ID', 'policies/KIND@GROUP', ..., or a coarse one without an id
    at bigint NOT NULL,
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
    kinds text,                                 -- what it has handlers for, separated by spaces; none: it never said
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

-- The bodies of documents, each by its SHA-256 in hex, once however many documents hold it.
CREATE TABLE body (
    account text NOT NULL REFERENCES account (domain),
    digest text NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (account, digest)
);

-- What a group says now of one kind. A rollout brings it to the servers in stages; `before` is what they have until their stage
-- starts, 0 for nothing.
CREATE TABLE policy (
    account text NOT NULL,
    group_id text NOT NULL,
    kind text NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (account, group_id, kind),
    FOREIGN KEY (account, group_id) REFERENCES server_group (account, id)
);

-- What policies were and are, by the journal number of the decision.
CREATE TABLE policy_revision (
    account text NOT NULL REFERENCES account (domain),
    revision bigint NOT NULL,
    group_id text NOT NULL,
    kind text NOT NULL,
    digest text,                                -- none: the policy ended
    created_at bigint NOT NULL,
    actor text NOT NULL,
    PRIMARY KEY (account, revision)
);
CREATE INDEX policy_history ON policy_revision (account, group_id, kind, revision);
CREATE INDEX policy_revision_digest ON policy_revision (account, digest);  -- who else names a body that somebody lets go of

-- A policy's revision, or a run of a task, on its way through its stages. Servers stand in an order that the subject's number and
-- their ids give; those whose place is at most `started` have it, those at most `confirmed` for good.
CREATE TABLE rollout (
    account text NOT NULL REFERENCES account (domain),
    revision bigint NOT NULL,                   -- of the policy, or of the task's run
    before bigint NOT NULL,                     -- the policy's revision before, 0 for none
    state text NOT NULL,                        -- 'running', 'stopped' or 'done'
    sizes text NOT NULL,                        -- '1,10%,100%'
    stop_after bigint NOT NULL,
    confirm_seconds bigint NOT NULL,
    stage bigint NOT NULL,                      -- the one under way, from 1
    started text NOT NULL,
    confirmed text NOT NULL,
    stage_at bigint NOT NULL,
    message text,
    PRIMARY KEY (account, revision)
);
CREATE INDEX rollout_running ON rollout (account, revision) WHERE state = 'running';

-- What servers said of a policy: the last word of each, overwritten in place. `observed` is what it holds, `applied` what
-- is in force there: items as 'revision:digest', joined by commas in their order, digests in hex.
-- A server is named by its id; one below a middle server by that one's id, a slash, and its path from there.
CREATE TABLE policy_report (
    account text NOT NULL,
    server_id text NOT NULL,
    kind text NOT NULL,
    observed text NOT NULL,
    applied text NOT NULL,
    state text NOT NULL,
    message text NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (account, server_id, kind)
);
CREATE INDEX policy_report_kind ON policy_report (account, kind);

CREATE TABLE task (
    account text NOT NULL REFERENCES account (domain),
    id text NOT NULL,
    kind text NOT NULL,
    args text NOT NULL,                         -- a JSON object
    group_id text,                              -- for all servers below this group
    server_id text,                             -- or for this one
    label text,                                 -- of them, those that bear it
    deadline_seconds bigint NOT NULL,
    schedule text,                              -- a cron expression
    zone text,
    sizes text,                                 -- the stages of each run
    stop_after bigint NOT NULL DEFAULT 0,
    next_at bigint,
    state text NOT NULL,                        -- 'planned', 'running', 'done' or 'cancelled'
    created_at bigint NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (account, id)
);
CREATE INDEX task_due ON task (account, next_at) WHERE next_at IS NOT NULL;

CREATE TABLE task_run (
    account text NOT NULL,
    id text NOT NULL,
    task_id text NOT NULL,
    revision bigint NOT NULL,
    digest text NOT NULL,
    begun_at bigint NOT NULL,
    deadline_at bigint NOT NULL,
    ended_at bigint,
    message text,
    PRIMARY KEY (account, id),
    FOREIGN KEY (account, task_id) REFERENCES task (account, id)
);
CREATE INDEX task_run_newest ON task_run (account, task_id, revision);
CREATE INDEX task_run_open ON task_run (account, revision) WHERE ended_at IS NULL;

-- Whom a run is for, and what came of it: the last word of each server, named as in policy_report.
CREATE TABLE task_result (
    account text NOT NULL,
    run_id text NOT NULL,
    server_id text NOT NULL,
    state text NOT NULL,
    exit_code bigint,
    output bytea,
    message text NOT NULL DEFAULT '',
    at bigint NOT NULL,
    PRIMARY KEY (account, run_id, server_id),
    FOREIGN KEY (account, run_id) REFERENCES task_run (account, id)
);
CREATE INDEX task_result_server ON task_result (account, server_id);

-- When the newest cross-certificate over a child's key begins. The next one begins later, also for another account, and also
-- once the server of the last one is removed.
CREATE TABLE certified_key (
    child_key text NOT NULL PRIMARY KEY,        -- SHA-256, hex
    not_before bigint NOT NULL                  -- Unix seconds
);

-- What last stood below middle servers, as those said: observations.
CREATE TABLE below_server (
    account text NOT NULL,
    via text NOT NULL,                          -- the middle server of this primary
    path text NOT NULL,                         -- ids on the way down from there, joined by slashes
    name text NOT NULL,
    place text NOT NULL,
    state text NOT NULL,
    connected bigint NOT NULL,
    connected_at bigint,
    unknown_since bigint,
    code text NOT NULL,
    kinds text NOT NULL,
    PRIMARY KEY (account, via, path),
    FOREIGN KEY (account, via) REFERENCES server (account, id) ON DELETE CASCADE
);

-- The primary above this one, or the last that was; the rows stand under the account '.'.
CREATE TABLE upper (
    account text NOT NULL PRIMARY KEY REFERENCES account (domain),
    authority bytea NOT NULL,                   -- X.509, DER
    name text NOT NULL,
    state text NOT NULL,                        -- 'present', 'kept', 'frozen' or 'gone'
    consent bytea NOT NULL,                     -- this authority's word, and its signature
    signature bytea NOT NULL,
    ancestry bytea NOT NULL,                    -- all primaries above, serialised; empty until the one above has certified this one
    memory text NOT NULL                        -- JSON: the newest versions, so that nothing older counts again
);
-- The newest set of each primary above, under its signature.
CREATE TABLE upper_set (
    account text NOT NULL REFERENCES account (domain),
    origin text NOT NULL,                       -- its primary id
    signed bytea NOT NULL,
    PRIMARY KEY (account, origin)
);
"""

STEPS = (Step("baseline-0.2", _BASELINE),)

STEPS_OF_0_1 = frozenset({"enrolment", "documents"})
"""The names of the steps that Enlist 0.1 applied."""
