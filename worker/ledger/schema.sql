-- The schema of today, to read: what the migrations together make, which are what
-- a database is upgraded by. A test holds both against each other, so a migration
-- is written here too. Privileges are in sql/grant_differences.sql.

CREATE SCHEMA nodeledger;
COMMENT ON SCHEMA nodeledger IS 'The resource ledger of a fleet of hypervisors. Views are for readers; their columns are only ever added to.';

CREATE TABLE nodeledger.migration (
    name text COLLATE "C" PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE nodeledger.migration IS 'The steps of this schema that were applied, with their checksums';


-- Tables. Hot ones carry no foreign keys: node rows are locked before anything
-- below them is written, and `nodeledger verify` checks the same relations without
-- a trigger for every claim.

CREATE TABLE nodeledger.installation (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    shards integer NOT NULL CHECK (shards BETWEEN 1 AND 100),
    -- of a change of the number of shards that is under way: the number it leads to,
    -- and whether every message of the old queues is gathered in one place
    resharding_to integer CHECK (resharding_to BETWEEN 1 AND 100),
    gathered boolean NOT NULL DEFAULT false,
    CONSTRAINT gathered_while_resharding CHECK (resharding_to IS NOT NULL OR NOT gathered)
);
COMMENT ON TABLE nodeledger.installation IS 'One row: how many shards there are, and whether that is being changed';

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
    -- tells a generation from another of the same number, after a fail-over that lost commits
    stamp bigint NOT NULL DEFAULT (random() * 9e18)::bigint,
    CHECK (cardinality(counters) = cardinality(used)),
    CONSTRAINT use_is_never_negative CHECK (0 <= ALL (used))
) WITH (fillfactor = 50);
COMMENT ON TABLE nodeledger.node IS 'A node''s changing part: locked, read and written by every batch';

-- A node's seldom changing part.
CREATE TABLE nodeledger.node_profile (
    node_id bigint PRIMARY KEY REFERENCES nodeledger.node ON DELETE CASCADE,
    hypervisor text,
    policy jsonb NOT NULL,
    inventory jsonb,
    capacity jsonb NOT NULL DEFAULT '{}',
    -- of the machine: one machine is one node, whatever names and addresses it has; held
    -- at the end of a batch, within which a machine may go from one node to another
    host_uuid uuid,
    labels jsonb NOT NULL DEFAULT '{}', -- what its owner says of it, by name
    CONSTRAINT a_host_is_one_node UNIQUE (host_uuid) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE nodeledger.node_profile IS 'A node''s seldom changing part: address, policy, inventory, capacity';

-- Who still uses the name that a node had is told what it is called now.
CREATE TABLE nodeledger.former_name (
    name text COLLATE "C" PRIMARY KEY,
    node_id bigint NOT NULL REFERENCES nodeledger.node ON DELETE CASCADE
);
CREATE INDEX former_name_of_node ON nodeledger.former_name (node_id);
COMMENT ON TABLE nodeledger.former_name IS 'Names that nodes had before they were renamed';

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
    deleted_at timestamptz,
    idle_since timestamptz -- of one that holds nothing, and that nobody waits for
) WITH (fillfactor = 80);
CREATE INDEX instance_idle ON nodeledger.instance (idle_since) WHERE idle_since IS NOT NULL;
CREATE INDEX instance_tombstones ON nodeledger.instance (deleted_at) WHERE deleted_at IS NOT NULL;
COMMENT ON TABLE nodeledger.instance IS 'An instance, or with deleted_at its tombstone';

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
COMMENT ON TABLE nodeledger.allocation IS 'What one instance holds on one node in one role';

CREATE TABLE nodeledger.pinned_cpu (
    node_id bigint NOT NULL,
    cpu integer NOT NULL,
    instance uuid NOT NULL,
    CONSTRAINT a_cpu_is_pinned_once PRIMARY KEY (node_id, cpu)
);
COMMENT ON TABLE nodeledger.pinned_cpu IS 'Host CPUs that one instance has for itself; a CPU is there once';

CREATE TABLE nodeledger.held_device (
    node_id bigint NOT NULL,
    address text COLLATE "C" NOT NULL,
    instance uuid NOT NULL,
    CONSTRAINT a_device_is_held_once PRIMARY KEY (node_id, address)
);
COMMENT ON TABLE nodeledger.held_device IS 'Devices that one instance holds whole; a device is there once';

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
-- beside these two one for each month, which prepare_entry_months() makes
CREATE TABLE nodeledger.entry_rest PARTITION OF nodeledger.entry DEFAULT;
CREATE TABLE nodeledger.entry_carried PARTITION OF nodeledger.entry FOR VALUES FROM (MINVALUE) TO ('2000-01-01 00:00:00Z');
CREATE INDEX entry_in_order ON nodeledger.entry (seq);
CREATE INDEX entry_of_node ON nodeledger.entry (node, seq);
CREATE INDEX entry_of_instance ON nodeledger.entry (instance, seq);
CREATE INDEX entry_by_time ON nodeledger.entry USING brin (at);
COMMENT ON TABLE nodeledger.entry IS 'The append-only ledger, by months; its sums are the use of the nodes';
COMMENT ON TABLE nodeledger.entry_rest IS 'Entries of months that have no partition yet';
COMMENT ON TABLE nodeledger.entry_carried IS 'Sums of entries past their retention';

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
COMMENT ON TABLE nodeledger.command IS 'Inbox and outcome in one: the row that makes an id unique holds its answer';

-- One row for each batch whose outcomes may not all be published yet.
CREATE TABLE nodeledger.outbox (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    commands uuid[] NOT NULL
);
COMMENT ON TABLE nodeledger.outbox IS 'Batches whose outcomes may not all be published yet';

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
COMMENT ON TABLE nodeledger.parked_command IS 'Commands that wait for a hypervisor, with their bodies';

-- When a node with parked commands is asked again.
CREATE TABLE nodeledger.probe (
    node text COLLATE "C" PRIMARY KEY,
    attempts bigint NOT NULL DEFAULT 0,
    next_at timestamptz NOT NULL
);
CREATE INDEX probe_due ON nodeledger.probe (next_at);
COMMENT ON TABLE nodeledger.probe IS 'When a node with parked commands is asked again';

-- Attempts at commands that were delivered before and not finished.
CREATE TABLE nodeledger.attempt (
    command uuid PRIMARY KEY,
    attempts integer NOT NULL,
    at timestamptz NOT NULL,
    detail text
);
COMMENT ON TABLE nodeledger.attempt IS 'Commands that were begun and not finished, and how often';

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
COMMENT ON TABLE nodeledger.dead_letter IS 'Messages that could not be applied, byte for byte, each once by digest and reason';

CREATE TABLE nodeledger.dead_letter_action (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    letter bigint NOT NULL REFERENCES nodeledger.dead_letter ON DELETE CASCADE,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    detail text
);
CREATE INDEX dead_letter_action_of_letter ON nodeledger.dead_letter_action (letter);
COMMENT ON TABLE nodeledger.dead_letter_action IS 'What was done to a dead letter, and by whom';

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
COMMENT ON TABLE nodeledger.worker IS 'The pool: workers, and when each was last seen';
COMMENT ON TABLE nodeledger.shard IS 'The worker that should be first at each shard';


-- Views: what readers see. Columns are only ever added, at the end.

CREATE VIEW nodeledger.node_usage AS
SELECT
    n.name AS node,
    r.resource,
    r.total,
    r.reserved,
    r.capacity,
    r.used,
    r.capacity - r.used AS free
FROM nodeledger.node AS n
JOIN nodeledger.node_profile AS p ON p.node_id = n.id
CROSS JOIN LATERAL (
    SELECT
        coalesce(c.key, u.counter) AS resource,
        coalesce((c.value ->> 'total')::bigint, 0) AS total,
        coalesce((c.value ->> 'reserved')::bigint, 0) AS reserved,
        coalesce((c.value ->> 'capacity')::bigint, 0) AS capacity,
        coalesce(u.amount, 0) AS used
    FROM jsonb_each(p.capacity) AS c
    FULL JOIN (
        SELECT x.counter, x.amount
        FROM unnest(n.counters, n.used) AS x (counter, amount)
        WHERE x.amount <> 0 AND strpos(x.counter, '/') = 0
    ) AS u ON u.counter = c.key
) AS r;
COMMENT ON VIEW nodeledger.node_usage IS 'What each node has of each resource, and how much of it is used; of CPU, memory and disk in whole, not by cell';
COMMENT ON COLUMN nodeledger.node_usage.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.node_usage.resource IS 'vcpus (shared), pcpus (dedicated), memory_mib, disk_mib, or a custom one, CUSTOM_…';
COMMENT ON COLUMN nodeledger.node_usage.total IS 'What the hypervisor reports; 0 of a resource that is used and no longer reported';
COMMENT ON COLUMN nodeledger.node_usage.reserved IS 'What the policy keeps for the host';
COMMENT ON COLUMN nodeledger.node_usage.capacity IS 'What may be handed out: floor((total - reserved) * ratio)';
COMMENT ON COLUMN nodeledger.node_usage.used IS 'What instances are charged';
COMMENT ON COLUMN nodeledger.node_usage.free IS 'capacity - used; below 0 where capacity shrank under what is used';

CREATE VIEW nodeledger.node_status AS
SELECT
    n.name AS node,
    p.hypervisor,
    coalesce((p.policy ->> 'enabled')::boolean, true) AS enabled,
    n.reachable,
    n.generation,
    n.observed_at,
    (SELECT count(DISTINCT a.instance) FROM nodeledger.allocation AS a WHERE a.node_id = n.id) AS instances,
    n.failed_builds,
    p.labels
FROM nodeledger.node AS n
JOIN nodeledger.node_profile AS p ON p.node_id = n.id;
COMMENT ON VIEW nodeledger.node_status IS 'Each node, and how it is';
COMMENT ON COLUMN nodeledger.node_status.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.node_status.hypervisor IS 'libvirt URI; null if the node is not observed';
COMMENT ON COLUMN nodeledger.node_status.enabled IS 'Whether new claims are accepted';
COMMENT ON COLUMN nodeledger.node_status.reachable IS 'Whether the hypervisor answered when it was last asked; null if it never was';
COMMENT ON COLUMN nodeledger.node_status.generation IS 'Version of the node, one higher with each change';
COMMENT ON COLUMN nodeledger.node_status.observed_at IS 'When the hypervisor last told its inventory';
COMMENT ON COLUMN nodeledger.node_status.instances IS 'How many instances hold something here';
COMMENT ON COLUMN nodeledger.node_status.failed_builds IS 'Builds that failed in a row';
COMMENT ON COLUMN nodeledger.node_status.labels IS 'What its owner says of it, by name';

CREATE VIEW nodeledger.allocation_view AS
SELECT
    a.instance,
    n.name AS node,
    a.role,
    i.project,
    i.user_id,
    coalesce((a.charge ->> 'vcpus')::bigint, 0) AS vcpus,
    coalesce((a.charge ->> 'pcpus')::bigint, 0) AS pcpus,
    coalesce((a.charge ->> 'memory_mib')::bigint, 0) AS memory_mib,
    coalesce((a.charge ->> 'disk_mib')::bigint, 0) AS disk_mib,
    (
        SELECT coalesce(jsonb_object_agg(c.key, c.value), '{}')
        FROM jsonb_each(a.charge) AS c
        WHERE starts_with(c.key, 'CUSTOM_')
    ) AS custom,
    a.assignment,
    a.claimed_at,
    a.lease_expires_at
FROM nodeledger.allocation AS a
JOIN nodeledger.node AS n ON n.id = a.node_id
LEFT JOIN nodeledger.instance AS i ON i.id = a.instance;
COMMENT ON VIEW nodeledger.allocation_view IS 'What each instance holds on each node, in each role';
COMMENT ON COLUMN nodeledger.allocation_view.instance IS 'Id of the instance';
COMMENT ON COLUMN nodeledger.allocation_view.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.allocation_view.role IS 'active; move_source or move_destination while a move is open; orphan: a domain that nobody claimed';
COMMENT ON COLUMN nodeledger.allocation_view.project IS 'Project of the instance';
COMMENT ON COLUMN nodeledger.allocation_view.user_id IS 'User of the instance';
COMMENT ON COLUMN nodeledger.allocation_view.vcpus IS 'Shared vCPUs charged; of a move within a node the destination bears only what exceeds the source, here and in what follows';
COMMENT ON COLUMN nodeledger.allocation_view.pcpus IS 'Dedicated CPUs charged';
COMMENT ON COLUMN nodeledger.allocation_view.memory_mib IS 'Memory charged, with overhead, in MiB';
COMMENT ON COLUMN nodeledger.allocation_view.disk_mib IS 'Disk charged, in MiB';
COMMENT ON COLUMN nodeledger.allocation_view.custom IS 'Custom resources charged, by name';
COMMENT ON COLUMN nodeledger.allocation_view.assignment IS 'Cells, CPUs, page sizes and devices for the domain, as the outcome gave them';
COMMENT ON COLUMN nodeledger.allocation_view.claimed_at IS 'When it was first held';
COMMENT ON COLUMN nodeledger.allocation_view.lease_expires_at IS 'When the lease runs out and it is given back; null: never';

CREATE VIEW nodeledger.pinned_cpu_view AS
SELECT n.name AS node, c.cpu, c.instance
FROM nodeledger.pinned_cpu AS c
JOIN nodeledger.node AS n ON n.id = c.node_id;
COMMENT ON VIEW nodeledger.pinned_cpu_view IS 'Host CPUs that one instance has for itself';
COMMENT ON COLUMN nodeledger.pinned_cpu_view.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.pinned_cpu_view.cpu IS 'Number of the host CPU';
COMMENT ON COLUMN nodeledger.pinned_cpu_view.instance IS 'Id of the instance that holds it';

-- state: available · held (by an instance) · shared (carries mediated devices) ·
-- hidden (its physical function, or one of its virtual ones, is held) ·
-- gone (held, and no longer reported)
CREATE VIEW nodeledger.device_view AS
SELECT
    n.name AS node,
    d.address,
    d.vendor,
    d.product,
    d.type,
    d.cell,
    d.parent,
    CASE
        WHEN d.holder IS NOT NULL AND NOT d.reported THEN 'gone'
        WHEN d.holder IS NOT NULL THEN 'held'
        WHEN d.kin_held THEN 'hidden'
        WHEN EXISTS (
            SELECT FROM unnest(n.counters, n.used) AS x (counter, amount)
            WHERE x.amount > 0 AND starts_with(x.counter, 'mdev/' || d.address || '/')
        ) THEN 'shared'
        ELSE 'available'
    END AS state,
    d.holder AS instance
FROM nodeledger.node AS n
JOIN nodeledger.node_profile AS p ON p.node_id = n.id
CROSS JOIN LATERAL (
    SELECT
        coalesce(v.address, h.address) AS address,
        v.vendor,
        v.product,
        CASE WHEN v.address IS NOT NULL THEN coalesce(v.type, 'pci') END AS type,
        v.cell,
        v.parent,
        v.address IS NOT NULL AS reported,
        h.instance AS holder,
        bool_or(h.instance IS NOT NULL) OVER (PARTITION BY coalesce(v.parent, v.address, h.address))
        AND (
            v.parent IS NULL
            OR v.parent IN (SELECT k.address FROM nodeledger.held_device AS k WHERE k.node_id = n.id)
        ) AS kin_held
    FROM jsonb_to_recordset(CASE WHEN jsonb_typeof(p.inventory -> 'devices') = 'array' THEN p.inventory -> 'devices' END)
        AS v (address text, vendor text, product text, type text, cell integer, parent text)
    FULL JOIN (
        SELECT k.address, k.instance
        FROM nodeledger.held_device AS k
        WHERE k.node_id = n.id
    ) AS h ON h.address = v.address
) AS d;
COMMENT ON VIEW nodeledger.device_view IS 'Devices that a node reports or an instance holds';
COMMENT ON COLUMN nodeledger.device_view.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.device_view.address IS 'PCI address, in lower case with a domain of four digits or more';
COMMENT ON COLUMN nodeledger.device_view.vendor IS 'Vendor id, hexadecimal; null if the device is no longer reported';
COMMENT ON COLUMN nodeledger.device_view.product IS 'Product id, hexadecimal; null if the device is no longer reported';
COMMENT ON COLUMN nodeledger.device_view.type IS 'pci, pf, vf, vdpa or mdev; null if the device is no longer reported';
COMMENT ON COLUMN nodeledger.device_view.cell IS 'NUMA cell; null if it has none';
COMMENT ON COLUMN nodeledger.device_view.parent IS 'Address of the physical function of a virtual one';
COMMENT ON COLUMN nodeledger.device_view.state IS 'available; held by an instance; shared: carries mediated devices; hidden: its physical function or one of its virtual ones is held; gone: held, and no longer reported';
COMMENT ON COLUMN nodeledger.device_view.instance IS 'Id of the instance that holds it; null if none does';

CREATE VIEW nodeledger.entry_view AS
SELECT
    e.seq,
    e.at,
    e.node,
    e.instance,
    e.command,
    e.kind,
    c.resource,
    c.delta,
    c.used_after
FROM nodeledger.entry AS e
CROSS JOIN LATERAL unnest(e.counters, e.deltas, e.used_after) AS c (resource, delta, used_after)
WHERE strpos(c.resource, '/') = 0;
COMMENT ON VIEW nodeledger.entry_view IS 'The append-only ledger: each change of what an instance is charged on a node, a row for each resource';
COMMENT ON COLUMN nodeledger.entry_view.seq IS 'Order of the entries; several rows have one where several resources changed at once';
COMMENT ON COLUMN nodeledger.entry_view.at IS 'When it was committed; 1970 in an entry that was carried forward';
COMMENT ON COLUMN nodeledger.entry_view.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.entry_view.instance IS 'Id of the instance';
COMMENT ON COLUMN nodeledger.entry_view.command IS 'Id of the command that caused it';
COMMENT ON COLUMN nodeledger.entry_view.kind IS 'Kind of that command; expire: a lease ran out; carried: the sum of entries past their retention';
COMMENT ON COLUMN nodeledger.entry_view.resource IS 'As in node_usage';
COMMENT ON COLUMN nodeledger.entry_view.delta IS 'By how much the charge changed';
COMMENT ON COLUMN nodeledger.entry_view.used_after IS 'What the node used of it afterwards';

CREATE VIEW nodeledger.outcome_view AS
SELECT
    c.id AS command,
    c.kind,
    c.status,
    c.node,
    c.instance,
    c.received_at,
    c.at,
    c.codes,
    c.outcome::jsonb AS outcome
FROM nodeledger.command AS c;
COMMENT ON VIEW nodeledger.outcome_view IS 'Each command that was answered, and its outcome';
COMMENT ON COLUMN nodeledger.outcome_view.command IS 'Id of the command';
COMMENT ON COLUMN nodeledger.outcome_view.kind IS 'Kind of the command, such as claim';
COMMENT ON COLUMN nodeledger.outcome_view.status IS 'applied or rejected, which is final; parked: waiting for a hypervisor; dead: in the dead letters';
COMMENT ON COLUMN nodeledger.outcome_view.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.outcome_view.instance IS 'Id of the instance; null where the command names none, or several';
COMMENT ON COLUMN nodeledger.outcome_view.received_at IS 'When a worker received the command';
COMMENT ON COLUMN nodeledger.outcome_view.at IS 'When this status was committed';
COMMENT ON COLUMN nodeledger.outcome_view.codes IS 'Codes of the reasons of a rejection';
COMMENT ON COLUMN nodeledger.outcome_view.outcome IS 'The outcome as it was published';

CREATE VIEW nodeledger.dead_letter_view AS
SELECT d.id, d.reason, d.detail, d.node, d.kind, d.command, d.first_seen, d.attempts, d.state
FROM nodeledger.dead_letter AS d;
COMMENT ON VIEW nodeledger.dead_letter_view IS 'Messages that could not be applied and wait for somebody';
COMMENT ON COLUMN nodeledger.dead_letter_view.id IS 'Number of the letter, for nodeledger dead show';
COMMENT ON COLUMN nodeledger.dead_letter_view.reason IS 'Why it is here, such as malformed or poison';
COMMENT ON COLUMN nodeledger.dead_letter_view.detail IS 'The particulars: the error, the place in the message';
COMMENT ON COLUMN nodeledger.dead_letter_view.node IS 'Name of the hypervisor host, where the message tells it';
COMMENT ON COLUMN nodeledger.dead_letter_view.kind IS 'Kind of the command, where the message tells it';
COMMENT ON COLUMN nodeledger.dead_letter_view.command IS 'Id of the command, where the message tells it';
COMMENT ON COLUMN nodeledger.dead_letter_view.first_seen IS 'When it first came here';
COMMENT ON COLUMN nodeledger.dead_letter_view.attempts IS 'How often it came here';
COMMENT ON COLUMN nodeledger.dead_letter_view.state IS 'open; replayed: sent again; resolved: its command has its final outcome; discarded';

CREATE VIEW nodeledger.project_usage AS
SELECT i.project, i.user_id, c.key AS resource, sum(c.value::bigint)::bigint AS used
FROM nodeledger.allocation AS a
JOIN nodeledger.instance AS i ON i.id = a.instance
CROSS JOIN LATERAL jsonb_each_text(a.charge) AS c
WHERE strpos(c.key, '/') = 0 AND i.project IS NOT NULL
GROUP BY i.project, i.user_id, c.key;
COMMENT ON VIEW nodeledger.project_usage IS 'What projects are charged over all nodes, by user and resource';
COMMENT ON COLUMN nodeledger.project_usage.project IS 'Project of the instances';
COMMENT ON COLUMN nodeledger.project_usage.user_id IS 'User of the instances';
COMMENT ON COLUMN nodeledger.project_usage.resource IS 'As in node_usage';
COMMENT ON COLUMN nodeledger.project_usage.used IS 'Sum of what they are charged; during a move both sides count';

CREATE VIEW nodeledger.instance_view AS
SELECT i.id AS instance, i.project, i.user_id, i.state, i.task, i.os_type, i.revision, i.move, i.deleted_at
FROM nodeledger.instance AS i;
COMMENT ON VIEW nodeledger.instance_view IS 'Each instance that is known, deleted or not';
COMMENT ON COLUMN nodeledger.instance_view.instance IS 'Id of the instance';
COMMENT ON COLUMN nodeledger.instance_view.project IS 'Its project';
COMMENT ON COLUMN nodeledger.instance_view.user_id IS 'Its user';
COMMENT ON COLUMN nodeledger.instance_view.state IS 'What the producer last said of its state';
COMMENT ON COLUMN nodeledger.instance_view.task IS 'What the producer last said is being done with it';
COMMENT ON COLUMN nodeledger.instance_view.os_type IS 'Its operating system, as the producer said';
COMMENT ON COLUMN nodeledger.instance_view.revision IS 'Number of the producer''s newest change that was applied';
COMMENT ON COLUMN nodeledger.instance_view.move IS 'Name of the open move; null if none is open';
COMMENT ON COLUMN nodeledger.instance_view.deleted_at IS 'When it was deleted; null while it lives';

CREATE VIEW nodeledger.node_detail_view AS
SELECT
    n.name AS node,
    p.policy,
    p.inventory,
    p.capacity,
    (
        SELECT coalesce(jsonb_object_agg(x.counter, x.amount), '{}')
        FROM unnest(n.counters, n.used) AS x (counter, amount)
    ) AS counters,
    n.parked,
    p.host_uuid,
    p.labels,
    ARRAY(SELECT f.name::text FROM nodeledger.former_name AS f WHERE f.node_id = n.id ORDER BY f.name) AS former_names
FROM nodeledger.node AS n
JOIN nodeledger.node_profile AS p ON p.node_id = n.id;
COMMENT ON VIEW nodeledger.node_detail_view IS 'Everything about a node in documents';
COMMENT ON COLUMN nodeledger.node_detail_view.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.node_detail_view.policy IS 'What the operator set; defaults are left out';
COMMENT ON COLUMN nodeledger.node_detail_view.inventory IS 'What the hypervisor reports; null before it was first observed';
COMMENT ON COLUMN nodeledger.node_detail_view.capacity IS 'total, reserved and capacity of each resource';
COMMENT ON COLUMN nodeledger.node_detail_view.counters IS 'Use of each counter: the resources, and their parts by cell, page size and mediated device type';
COMMENT ON COLUMN nodeledger.node_detail_view.parked IS 'Commands that wait for its hypervisor and hold back those behind them';
COMMENT ON COLUMN nodeledger.node_detail_view.host_uuid IS 'UUID of the machine behind the node, as its hypervisor tells it';
COMMENT ON COLUMN nodeledger.node_detail_view.labels IS 'What its owner says of it, by name';
COMMENT ON COLUMN nodeledger.node_detail_view.former_names IS 'Names it had before it was renamed; its history up to then is under these';

-- How many instances of a node share a property. io_workload counts those that
-- keep its disks busy; failed_builds counts builds that failed in a row.
CREATE VIEW nodeledger.node_statistics AS
SELECT n.name AS node, s.property, s.value, count(*) AS amount
FROM nodeledger.node AS n
CROSS JOIN LATERAL (SELECT DISTINCT a.instance FROM nodeledger.allocation AS a WHERE a.node_id = n.id) AS r
LEFT JOIN nodeledger.instance AS i ON i.id = r.instance
CROSS JOIN LATERAL (
    VALUES
    ('instances', NULL),
    ('state', coalesce(i.state, 'none')),
    ('task', coalesce(i.task, 'none')),
    ('project', coalesce(i.project, 'none')),
    ('os_type', coalesce(i.os_type, 'none')),
    ('io_workload', CASE WHEN
        i.state = 'building'
        OR i.task IN (
            'resize_migrating', 'resize_prep', 'rebuilding', 'image_snapshot', 'image_backup', 'rescuing', 'unshelving'
        )
        THEN 'busy' END)
) AS s (property, value)
WHERE s.property <> 'io_workload' OR s.value IS NOT NULL
GROUP BY n.name, s.property, s.value
UNION ALL
SELECT n.name, 'failed_builds', NULL, n.failed_builds
FROM nodeledger.node AS n;
COMMENT ON VIEW nodeledger.node_statistics IS 'How many instances of a node share a property';
COMMENT ON COLUMN nodeledger.node_statistics.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.node_statistics.property IS 'instances, state, task, project, os_type; io_workload: keeping its disks busy; failed_builds: builds that failed in a row';
COMMENT ON COLUMN nodeledger.node_statistics.value IS 'Value of the property; none where it is not set';
COMMENT ON COLUMN nodeledger.node_statistics.amount IS 'How many';

-- One row for each line of the ledger. pins and devices are those held after it.
CREATE VIEW nodeledger.history_view AS
SELECT
    e.seq,
    e.at,
    e.node,
    e.instance,
    e.project,
    e.user_id,
    e.command,
    e.kind,
    e.counters,
    e.deltas,
    e.used_after,
    coalesce(e.pins, '{}') AS pins,
    coalesce(e.devices, '{}') AS devices
FROM nodeledger.entry AS e;
COMMENT ON VIEW nodeledger.history_view IS 'The append-only ledger, a row for each entry, with all counters';
COMMENT ON COLUMN nodeledger.history_view.seq IS 'Order of the entries';
COMMENT ON COLUMN nodeledger.history_view.at IS 'When it was committed; 1970 in an entry that was carried forward';
COMMENT ON COLUMN nodeledger.history_view.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.history_view.instance IS 'Id of the instance';
COMMENT ON COLUMN nodeledger.history_view.project IS 'Its project then';
COMMENT ON COLUMN nodeledger.history_view.user_id IS 'Its user then';
COMMENT ON COLUMN nodeledger.history_view.command IS 'Id of the command that caused it';
COMMENT ON COLUMN nodeledger.history_view.kind IS 'Kind of that command; expire: a lease ran out; carried: the sum of entries past their retention';
COMMENT ON COLUMN nodeledger.history_view.counters IS 'The counters that changed: resources, and their parts by cell, page size and mediated device type';
COMMENT ON COLUMN nodeledger.history_view.deltas IS 'By how much each changed, in the order of counters';
COMMENT ON COLUMN nodeledger.history_view.used_after IS 'What the node used of each afterwards, in the order of counters';
COMMENT ON COLUMN nodeledger.history_view.pins IS 'Host CPUs that the instance held for itself on the node afterwards';
COMMENT ON COLUMN nodeledger.history_view.devices IS 'Addresses of the devices that the instance held on the node afterwards';

CREATE VIEW nodeledger.parked_view AS
SELECT c.seq, c.node, c.command, c.received_at, c.parked_at, octet_length(c.body) AS size_bytes
FROM nodeledger.parked_command AS c;
COMMENT ON VIEW nodeledger.parked_view IS 'Commands that wait for a hypervisor, durably and in order';
COMMENT ON COLUMN nodeledger.parked_view.seq IS 'Order in which those of one node go on';
COMMENT ON COLUMN nodeledger.parked_view.node IS 'Name of the hypervisor host that is waited for';
COMMENT ON COLUMN nodeledger.parked_view.command IS 'Id of the command';
COMMENT ON COLUMN nodeledger.parked_view.received_at IS 'When a worker received it';
COMMENT ON COLUMN nodeledger.parked_view.parked_at IS 'Since when it waits';
COMMENT ON COLUMN nodeledger.parked_view.size_bytes IS 'Size of its body';


-- What audits found to differ between the ledger and a node's hypervisor: what differs now, since when, and what
-- went away. It goes with its node. Nothing of it is on the path of a command, so it may carry a foreign key.
CREATE TABLE nodeledger.drift (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node_id bigint NOT NULL REFERENCES nodeledger.node ON DELETE CASCADE,
    instance uuid,
    kind text NOT NULL,
    detail text NOT NULL,
    ledger jsonb,
    hypervisor jsonb,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    resolved_at timestamptz
);
CREATE INDEX drift_of_node ON nodeledger.drift (node_id, resolved_at);
CREATE INDEX drift_now ON nodeledger.drift (kind) WHERE resolved_at IS NULL;
CREATE INDEX drift_resolved ON nodeledger.drift (resolved_at) WHERE resolved_at IS NOT NULL;
COMMENT ON TABLE nodeledger.drift IS 'Where ledger and hypervisor differ, or differed';

CREATE VIEW nodeledger.drift_view AS
SELECT
    n.name AS node,
    d.instance,
    d.kind,
    d.detail,
    d.ledger,
    d.hypervisor,
    d.first_seen,
    d.last_seen,
    d.resolved_at,
    d.id
FROM nodeledger.drift AS d
JOIN nodeledger.node AS n ON n.id = d.node_id;

COMMENT ON VIEW nodeledger.drift_view IS 'Where ledger and hypervisor differ, or differed, as audits found it';
COMMENT ON COLUMN nodeledger.drift_view.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.drift_view.instance IS 'Id of the instance, or of the domain that nobody claimed; null if it is about the host';
COMMENT ON COLUMN nodeledger.drift_view.kind IS 'What differs: orphan, ghost, amount, pins, devices, …';
COMMENT ON COLUMN nodeledger.drift_view.detail IS 'What differs, in a sentence, as it was last seen';
COMMENT ON COLUMN nodeledger.drift_view.ledger IS 'What the ledger says; null where it says nothing';
COMMENT ON COLUMN nodeledger.drift_view.hypervisor IS 'What the hypervisor says; null where it says nothing';
COMMENT ON COLUMN nodeledger.drift_view.first_seen IS 'When an audit found it first';
COMMENT ON COLUMN nodeledger.drift_view.last_seen IS 'When an audit found it last';
COMMENT ON COLUMN nodeledger.drift_view.resolved_at IS 'When an audit found it gone; null while it is there';
COMMENT ON COLUMN nodeledger.drift_view.id IS 'Order in which they were found';

-- How busy each host was when it was looked at last.
CREATE TABLE nodeledger.host_load (
    node_id bigint PRIMARY KEY REFERENCES nodeledger.node ON DELETE CASCADE,
    at timestamptz NOT NULL,
    user_percent bigint,
    kernel_percent bigint,
    iowait_percent bigint,
    idle_percent bigint,
    memory_used_mib bigint
);
COMMENT ON TABLE nodeledger.host_load IS 'How busy each host was when it was looked at last';

CREATE VIEW nodeledger.node_load AS
SELECT
    n.name AS node,
    l.at,
    l.user_percent,
    l.kernel_percent,
    l.iowait_percent,
    l.idle_percent,
    l.memory_used_mib
FROM nodeledger.host_load AS l
JOIN nodeledger.node AS n ON n.id = l.node_id;

COMMENT ON VIEW nodeledger.node_load IS 'How busy each host was when it was looked at last';
COMMENT ON COLUMN nodeledger.node_load.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.node_load.at IS 'When it was looked at';
COMMENT ON COLUMN nodeledger.node_load.user_percent IS 'Share of CPU time of all CPUs since the look before: guests and programs; null where the hypervisor does not tell';
COMMENT ON COLUMN nodeledger.node_load.kernel_percent IS 'Share of CPU time: the kernel';
COMMENT ON COLUMN nodeledger.node_load.iowait_percent IS 'Share of CPU time: idle and waiting for disks';
COMMENT ON COLUMN nodeledger.node_load.idle_percent IS 'Share of CPU time: idle';
COMMENT ON COLUMN nodeledger.node_load.memory_used_mib IS 'Memory in use, without buffers and caches, in MiB';


-- Ends a statement whose batch met a conflict; all that it wrote is undone.
CREATE FUNCTION nodeledger.conflict(what text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RAISE EXCEPTION 'another worker changed % that this batch stands on', what
        USING ERRCODE = 'serialization_failure';
END
$$;


-- A command is parked exactly while its row waits. Both sides are checked at the
-- end of a transaction, of the few commands that are not simply new and answered.
CREATE FUNCTION nodeledger.check_parked() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    one uuid;
    said text;
BEGIN
    IF TG_TABLE_NAME = 'command' THEN
        one := NEW.id;
    ELSE
        one := coalesce(NEW.command, OLD.command);
    END IF;
    SELECT c.status INTO said FROM nodeledger.command AS c WHERE c.id = one;
    IF (said = 'parked') <> EXISTS (SELECT FROM nodeledger.parked_command AS p WHERE p.command = one) THEN
        RAISE check_violation USING
            MESSAGE = format('command %s is %s, and its parked row says otherwise', one, said),
            CONSTRAINT = 'a_command_is_parked_while_its_row_waits';
    END IF;
    RETURN NULL;
END
$$;

CREATE CONSTRAINT TRIGGER a_command_is_parked_while_its_row_waits
AFTER INSERT OR DELETE ON nodeledger.parked_command
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION nodeledger.check_parked();

CREATE CONSTRAINT TRIGGER a_command_is_parked_while_its_row_waits
AFTER UPDATE OF status ON nodeledger.command
DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION nodeledger.check_parked();

-- Puts right what contradicts itself about parked commands, of these nodes or,
-- null, of all; answers on how many nodes and commands. One that was said to be
-- dead while its row waits goes on waiting, one that was answered waits no more,
-- nodes are counted anew, and those that nobody would ask are asked.
CREATE FUNCTION nodeledger.repair_parked(only_nodes text[]) RETURNS bigint
LANGUAGE plpgsql
AS $$
DECLARE
    names text[];
    part bigint;
    repaired bigint;
BEGIN
    names := ARRAY(
        SELECT n.name FROM nodeledger.node AS n
        WHERE
            (only_nodes IS NULL OR n.name = ANY (only_nodes))
            AND n.parked <> (SELECT count(*) FROM nodeledger.parked_command AS p WHERE p.node = n.name AND p.blocking)
        UNION
        SELECT p.node
        FROM nodeledger.parked_command AS p
        JOIN nodeledger.command AS c ON c.id = p.command
        WHERE (only_nodes IS NULL OR p.node = ANY (only_nodes)) AND c.status <> 'parked'
    );
    PERFORM FROM nodeledger.node AS n WHERE n.name = ANY (names) ORDER BY n.id FOR UPDATE;
    UPDATE nodeledger.command AS c SET
        status = 'parked',
        outcome = (
            (c.outcome::jsonb - 'dead_letter') || jsonb_build_object(
                'status', 'parked', 'sequence', coalesce((c.outcome::jsonb ->> 'sequence')::bigint, 1) + 1
            )
        )::text
    FROM nodeledger.parked_command AS p
    WHERE p.node = ANY (names) AND c.id = p.command AND c.status = 'dead';
    GET DIAGNOSTICS repaired = ROW_COUNT;
    DELETE FROM nodeledger.parked_command AS p USING nodeledger.command AS c
    WHERE p.node = ANY (names) AND c.id = p.command AND c.status IN ('applied', 'rejected');
    GET DIAGNOSTICS part = ROW_COUNT;
    repaired := repaired + part;
    UPDATE nodeledger.node AS n
    SET parked = x.waiting, generation = n.generation + 1, stamp = (random() * 9e18)::bigint
    FROM (
        SELECT m.id, count(p.seq) FILTER (WHERE p.blocking) AS waiting
        FROM nodeledger.node AS m
        LEFT JOIN nodeledger.parked_command AS p ON p.node = m.name
        WHERE m.name = ANY (names)
        GROUP BY m.id
    ) AS x
    WHERE n.id = x.id AND n.parked <> x.waiting;
    GET DIAGNOSTICS part = ROW_COUNT;
    repaired := repaired + part;
    INSERT INTO nodeledger.probe (node, next_at)
    SELECT DISTINCT p.node, now() FROM nodeledger.parked_command AS p
    WHERE only_nodes IS NULL OR p.node = ANY (only_nodes)
    ORDER BY p.node
    ON CONFLICT (node) DO NOTHING;
    GET DIAGNOSTICS part = ROW_COUNT;
    RETURN repaired + part;
END
$$;

-- What the worker may have done to old rows, though it may not delete them
-- itself. Nothing younger than a day can be reached.

CREATE FUNCTION nodeledger.check_retention(before timestamptz) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF before IS NULL OR before > now() - interval '1 day' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'rows younger than a day are kept';
    END IF;
END
$$;

-- Makes a partition for this month and each of the next; answers how many it made.
CREATE FUNCTION nodeledger.prepare_entry_months(ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'
SET TimeZone = 'UTC'
AS $$
DECLARE
    month timestamptz;
    partition text;
    made integer := 0;
BEGIN
    LOCK TABLE nodeledger.migration IN SHARE ROW EXCLUSIVE MODE;
    FOR month IN
        SELECT generate_series(date_trunc('month', now()), date_trunc('month', now()) + least(ahead, 12) * interval '1 month', '1 month')
    LOOP
        partition := to_char(month, '"entry_"YYYY"_"MM');
        CONTINUE WHEN to_regclass('nodeledger.' || partition) IS NOT NULL;
        LOCK TABLE nodeledger.entry_rest IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('CREATE TABLE nodeledger.%I (LIKE nodeledger.entry)', partition);
        EXECUTE format(
            'WITH late AS (DELETE FROM nodeledger.entry_rest WHERE at >= %L AND at < %L RETURNING *)'
            ' INSERT INTO nodeledger.%I SELECT * FROM late',
            month, month + interval '1 month', partition
        );
        EXECUTE format(
            'ALTER TABLE nodeledger.entry ATTACH PARTITION nodeledger.%I FOR VALUES FROM (%L) TO (%L)',
            partition, month, month + interval '1 month'
        );
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;

-- Replaces the entries of whole months by one line for each instance that
-- still holds something, of kind 'carried', so that every sum stays what it was.
-- Takes so many nodes after a name; answers the last of them, null at the end.
CREATE FUNCTION nodeledger.carry_entries(before timestamptz, after_node text, portion integer) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC'
SET enable_hashjoin = on
SET enable_mergejoin = on
AS $$
DECLARE
    month CONSTANT timestamptz := date_trunc('month', before);
    names text[];
BEGIN
    PERFORM nodeledger.check_retention(before);
    BEGIN
        LOCK TABLE nodeledger.migration IN SHARE ROW EXCLUSIVE MODE NOWAIT;
    EXCEPTION
        WHEN lock_not_available THEN
            RETURN NULL;
    END;
    names := ARRAY(
        SELECT DISTINCT e.node COLLATE "C" FROM nodeledger.entry AS e
        WHERE e.node > after_node AND e.at >= '2000-01-01 00:00:00Z' AND e.at < month
        ORDER BY 1
        LIMIT portion
    );
    WITH gone AS (
        DELETE FROM nodeledger.entry AS e WHERE e.node = ANY (names) AND e.at < month RETURNING e.*
    ),
    total AS (
        SELECT g.node, g.instance, c.counter, sum(c.delta)::bigint AS amount
        FROM gone AS g
        CROSS JOIN LATERAL unnest(g.counters, g.deltas) AS c (counter, delta)
        GROUP BY g.node, g.instance, c.counter
        HAVING sum(c.delta) <> 0
    ),
    last AS (
        SELECT DISTINCT ON (g.node, g.instance) g.* FROM gone AS g ORDER BY g.node, g.instance, g.seq DESC
    ),
    running AS (
        SELECT
            l.seq, t.counter, t.amount,
            sum(t.amount) OVER (PARTITION BY l.node, t.counter ORDER BY l.seq)::bigint AS used_after
        FROM last AS l
        JOIN total AS t ON (t.node, t.instance) = (l.node, l.instance)
    ),
    line AS (
        SELECT
            r.seq,
            array_agg(r.counter ORDER BY r.counter) AS counters,
            array_agg(r.amount ORDER BY r.counter) AS deltas,
            array_agg(r.used_after ORDER BY r.counter) AS used_after
        FROM running AS r
        GROUP BY r.seq
    )
    INSERT INTO nodeledger.entry (
        seq, at, node, instance, project, user_id, command, kind, counters, deltas, used_after, pins, devices
    )
    OVERRIDING SYSTEM VALUE
    SELECT
        l.seq, 'epoch', l.node, l.instance, l.project, l.user_id, l.command, 'carried',
        coalesce(n.counters, '{}'), coalesce(n.deltas, '{}'), coalesce(n.used_after, '{}'), l.pins, l.devices
    FROM last AS l
    LEFT JOIN line AS n ON n.seq = l.seq
    WHERE n.seq IS NOT NULL OR cardinality(l.pins) > 0 OR cardinality(l.devices) > 0;
    RETURN names[cardinality(names)];
END
$$;

-- Drops the partitions of months that were carried forward, unless somebody is
-- busy with the ledger for longer than a moment; answers how many.
CREATE FUNCTION nodeledger.drop_entry_months(before timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '200ms'
SET TimeZone = 'UTC'
AS $$
DECLARE
    partition text;
    filled boolean;
    dropped integer := 0;
BEGIN
    PERFORM nodeledger.check_retention(before);
    FOR partition IN
        SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE
            i.inhparent = 'nodeledger.entry'::regclass
            AND c.relname ~ '^entry_\d{4}_\d\d$'
            AND c.relname COLLATE "C" < to_char(before, '"entry_"YYYY"_"MM') COLLATE "C"
        ORDER BY c.relname
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM nodeledger.%I)', partition) INTO filled;
        CONTINUE WHEN filled;
        BEGIN
            EXECUTE format('DROP TABLE nodeledger.%I', partition);
            dropped := dropped + 1;
        EXCEPTION WHEN lock_not_available THEN
            RETURN dropped;
        END;
    END LOOP;
    RETURN dropped;
END
$$;

-- Forgets answered commands: their ids are new again.
CREATE FUNCTION nodeledger.purge_commands(before timestamptz, portion integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT nodeledger.check_retention(before);
    WITH old AS (
        SELECT c.id FROM nodeledger.command AS c
        WHERE c.at < before AND c.status IN ('applied', 'rejected')
        ORDER BY c.at
        LIMIT portion
        FOR UPDATE SKIP LOCKED
    ),
    gone AS (
        DELETE FROM nodeledger.command AS c USING old AS o WHERE c.id = o.id RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;

-- Whom a command that is parked, or whose letter may still be replayed, could
-- claim; null: anybody, by a claim for several.
CREATE FUNCTION nodeledger.awaited_instances() RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.instance FROM nodeledger.command AS c
    WHERE c.status = 'parked' AND (c.instance IS NOT NULL OR c.kind = 'claim')
    UNION
    SELECT c.instance FROM nodeledger.dead_letter AS d
    LEFT JOIN nodeledger.command AS c ON c.id = d.command
    WHERE d.state IN ('open', 'replayed') AND (c.instance IS NOT NULL OR d.kind = 'claim')
$$;

-- Forgets that instances were deleted: their ids may be claimed again.
CREATE FUNCTION nodeledger.purge_tombstones(before timestamptz, portion integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT nodeledger.check_retention(before);
    WITH awaited AS MATERIALIZED (
        SELECT w.instance FROM nodeledger.awaited_instances() AS w (instance)
    ),
    old AS (
        SELECT i.id FROM nodeledger.instance AS i
        WHERE
            i.deleted_at < before
            AND NOT EXISTS (SELECT FROM nodeledger.allocation AS a WHERE a.instance = i.id)
            AND NOT EXISTS (SELECT FROM awaited AS w WHERE w.instance = i.id OR w.instance IS NULL)
        ORDER BY i.deleted_at
        LIMIT portion
        FOR UPDATE OF i SKIP LOCKED
    ),
    gone AS (
        DELETE FROM nodeledger.instance AS i USING old AS o WHERE i.id = o.id RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;

-- Forgets instances whose claim was aborted or expired, and their revisions, as
-- tombstones are. One that is claimed just now is idle no more when it is locked.
CREATE FUNCTION nodeledger.purge_idle_instances(before timestamptz, portion integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT nodeledger.check_retention(before);
    WITH awaited AS MATERIALIZED (
        SELECT w.instance FROM nodeledger.awaited_instances() AS w (instance)
    ),
    old AS (
        SELECT i.id FROM nodeledger.instance AS i
        WHERE
            i.idle_since < before
            AND NOT EXISTS (SELECT FROM nodeledger.allocation AS a WHERE a.instance = i.id)
            AND NOT EXISTS (SELECT FROM awaited AS w WHERE w.instance = i.id OR w.instance IS NULL)
        ORDER BY i.idle_since
        LIMIT portion
        FOR UPDATE OF i SKIP LOCKED
    ),
    gone AS (
        DELETE FROM nodeledger.instance AS i USING old AS o WHERE i.id = o.id RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;

-- Forgets dead letters that were dealt with.
CREATE FUNCTION nodeledger.purge_dead_letters(before timestamptz, portion integer) RETURNS bigint
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT nodeledger.check_retention(before);
    WITH old AS (
        SELECT d.id FROM nodeledger.dead_letter AS d
        WHERE d.last_seen < before AND d.state IN ('resolved', 'discarded')
        ORDER BY d.id
        LIMIT portion
        FOR UPDATE SKIP LOCKED
    ),
    gone AS (
        DELETE FROM nodeledger.dead_letter AS d USING old AS o WHERE d.id = o.id RETURNING 1
    )
    SELECT count(*) FROM gone;
$$;
