-- The tables. Hot ones carry no foreign keys: node rows are locked before
-- anything below them is written, and `nodeledger verify` checks the same
-- relations without a trigger for every claim.

CREATE TABLE nodeledger.installation (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    shards integer NOT NULL CHECK (shards BETWEEN 1 AND 100)
);

-- A node's changing part: locked, read and written by every batch.
CREATE TABLE nodeledger.node (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    generation bigint NOT NULL CHECK (generation > 0),
    counters text[] NOT NULL DEFAULT '{}',
    used bigint[] NOT NULL DEFAULT '{}',
    failed_builds bigint NOT NULL DEFAULT 0,
    parked bigint NOT NULL DEFAULT 0 CHECK (parked >= 0),
    reachable boolean,
    observed_at timestamptz,
    CHECK (cardinality(counters) = cardinality(used)),
    CONSTRAINT use_is_never_negative CHECK (0 <= ALL (used))
) WITH (fillfactor = 50);

-- A node's seldom changing part.
CREATE TABLE nodeledger.node_profile (
    node_id bigint PRIMARY KEY REFERENCES nodeledger.node ON DELETE CASCADE,
    hypervisor text,
    policy jsonb NOT NULL,
    inventory jsonb,
    capacity jsonb NOT NULL DEFAULT '{}'
);

-- An instance, or, with deleted_at, its tombstone.
-- version lets two workers find out that they changed it at the same time.
CREATE TABLE nodeledger.instance (
    id uuid PRIMARY KEY,
    version bigint NOT NULL,
    project text,
    user_id text,
    revision bigint,
    state text,
    task text,
    os_type text,
    move text,
    stranded text,
    deleted_at timestamptz
) WITH (fillfactor = 80);
CREATE INDEX instance_tombstones ON nodeledger.instance (deleted_at) WHERE deleted_at IS NOT NULL;

-- What one instance holds on one node in one role. full_charge is what the
-- role would cost alone; charge is what it adds to the node, which for the
-- destination of a move within a node is only what exceeds the source.
CREATE TABLE nodeledger.allocation (
    instance uuid NOT NULL,
    node_id bigint NOT NULL,
    role text NOT NULL CHECK (role IN ('active', 'move_source', 'move_destination', 'orphan')),
    request jsonb NOT NULL,
    full_charge jsonb NOT NULL,
    charge jsonb NOT NULL,
    pins integer[] NOT NULL DEFAULT '{}',
    devices text[] NOT NULL DEFAULT '{}',
    assignment jsonb NOT NULL,
    claimed_at timestamptz NOT NULL,
    lease_expires_at timestamptz,
    PRIMARY KEY (instance, node_id, role)
);
CREATE INDEX allocation_of_node ON nodeledger.allocation (node_id);
CREATE INDEX allocation_leases ON nodeledger.allocation (lease_expires_at) WHERE lease_expires_at IS NOT NULL;

CREATE TABLE nodeledger.pinned_cpu (
    node_id bigint NOT NULL,
    cpu integer NOT NULL,
    instance uuid NOT NULL,
    CONSTRAINT a_cpu_is_pinned_once PRIMARY KEY (node_id, cpu)
);

CREATE TABLE nodeledger.held_device (
    node_id bigint NOT NULL,
    address text COLLATE "C" NOT NULL,
    instance uuid NOT NULL,
    CONSTRAINT a_device_is_held_once PRIMARY KEY (node_id, address)
);

-- The append-only ledger: one row for each change of what an instance is
-- charged on a node. pins and devices are those held after the change.
CREATE TABLE nodeledger.entry (
    seq bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL,
    node text COLLATE "C" NOT NULL,
    instance uuid NOT NULL,
    project text,
    user_id text,
    command uuid NOT NULL,
    kind text NOT NULL,
    counters text[] NOT NULL,
    deltas bigint[] NOT NULL,
    used_after bigint[] NOT NULL,
    pins integer[],
    devices text[]
) PARTITION BY RANGE (at);
CREATE TABLE nodeledger.entry_rest PARTITION OF nodeledger.entry DEFAULT;
CREATE INDEX entry_in_order ON nodeledger.entry (seq);
CREATE INDEX entry_of_node ON nodeledger.entry (node, seq);
CREATE INDEX entry_of_instance ON nodeledger.entry (instance, seq);
CREATE INDEX entry_by_time ON nodeledger.entry USING brin (at);

-- Inbox and outcome in one: the row that makes an id unique holds its answer.
-- outcome is the published text, byte for byte.
CREATE TABLE nodeledger.command (
    id uuid PRIMARY KEY,
    fingerprint uuid NOT NULL,
    kind text NOT NULL,
    status text NOT NULL CHECK (status IN ('applied', 'rejected', 'parked', 'dead')),
    node text COLLATE "C" NOT NULL,
    instance uuid,
    received_at timestamptz NOT NULL,
    at timestamptz NOT NULL,
    codes text[] NOT NULL DEFAULT '{}',
    reply_to text,
    correlation_id text,
    traceparent text,
    outcome text NOT NULL
);
CREATE INDEX command_by_time ON nodeledger.command (at);
CREATE INDEX command_unfinished ON nodeledger.command (at) WHERE status IN ('parked', 'dead');

-- One row for each batch whose outcomes may not all be published yet.
CREATE TABLE nodeledger.outbox (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    commands uuid[] NOT NULL
);

CREATE TABLE nodeledger.parked_command (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node text COLLATE "C" NOT NULL,
    command uuid NOT NULL UNIQUE,
    body bytea NOT NULL,
    reply_to text,
    correlation_id text,
    traceparent text,
    user_id text,
    received_at timestamptz NOT NULL,
    parked_at timestamptz NOT NULL,
    blocking boolean NOT NULL,
    detail text NOT NULL
);
CREATE INDEX parked_command_of_node ON nodeledger.parked_command (node, seq);

-- When a node with parked commands is asked again.
CREATE TABLE nodeledger.probe (
    node text COLLATE "C" PRIMARY KEY,
    attempts bigint NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL
);
CREATE INDEX probe_due ON nodeledger.probe (next_at);

-- Tries of commands that were delivered before and not finished.
CREATE TABLE nodeledger.attempt (
    command uuid PRIMARY KEY,
    tries integer NOT NULL,
    at timestamptz NOT NULL,
    detail text
);

CREATE TABLE nodeledger.dead_letter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest uuid NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    fingerprint text NOT NULL,
    node text COLLATE "C",
    kind text,
    command uuid,
    body bytea NOT NULL,
    headers jsonb NOT NULL DEFAULT '{}',
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    attempts bigint NOT NULL DEFAULT 1,
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replayed', 'resolved', 'discarded'))
);
CREATE UNIQUE INDEX dead_letter_digest ON nodeledger.dead_letter (digest, reason);
CREATE INDEX dead_letter_command ON nodeledger.dead_letter (command) WHERE command IS NOT NULL;
CREATE INDEX dead_letter_open ON nodeledger.dead_letter (reason, id) WHERE state IN ('open', 'replayed');

CREATE TABLE nodeledger.dead_letter_action (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    letter bigint NOT NULL REFERENCES nodeledger.dead_letter ON DELETE CASCADE,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    detail text
);
CREATE INDEX dead_letter_action_of_letter ON nodeledger.dead_letter_action (letter);

-- The pool: who is alive, and who should be first at each shard.
CREATE TABLE nodeledger.worker (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE nodeledger.shard (
    number integer PRIMARY KEY CHECK (number >= 0),
    owner uuid
);
