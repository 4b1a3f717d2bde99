-- What readers see. Columns are only ever added, at the end.

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

CREATE VIEW nodeledger.node_status AS
SELECT
    n.name AS node,
    p.hypervisor,
    coalesce((p.policy ->> 'enabled')::boolean, true) AS enabled,
    n.reachable,
    n.generation,
    n.observed_at,
    (SELECT count(DISTINCT a.instance) FROM nodeledger.allocation AS a WHERE a.node_id = n.id) AS instances,
    n.failed_builds
FROM nodeledger.node AS n
JOIN nodeledger.node_profile AS p ON p.node_id = n.id;

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

CREATE VIEW nodeledger.pinned_cpu_view AS
SELECT n.name AS node, c.cpu, c.instance
FROM nodeledger.pinned_cpu AS c
JOIN nodeledger.node AS n ON n.id = c.node_id;

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

CREATE VIEW nodeledger.dead_letter_view AS
SELECT d.id, d.reason, d.detail, d.node, d.kind, d.command, d.first_seen, d.attempts, d.state
FROM nodeledger.dead_letter AS d;

CREATE VIEW nodeledger.project_usage AS
SELECT i.project, i.user_id, c.key AS resource, sum(c.value::bigint)::bigint AS used
FROM nodeledger.allocation AS a
JOIN nodeledger.instance AS i ON i.id = a.instance
CROSS JOIN LATERAL jsonb_each_text(a.charge) AS c
WHERE strpos(c.key, '/') = 0 AND i.project IS NOT NULL
GROUP BY i.project, i.user_id, c.key;

CREATE VIEW nodeledger.instance_view AS
SELECT i.id AS instance, i.project, i.user_id, i.state, i.task, i.os_type, i.revision, i.move, i.deleted_at
FROM nodeledger.instance AS i;

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
    n.parked
FROM nodeledger.node AS n
JOIN nodeledger.node_profile AS p ON p.node_id = n.id;

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

CREATE VIEW nodeledger.parked_view AS
SELECT c.seq, c.node, c.command, c.received_at, c.parked_at, octet_length(c.body) AS size_bytes
FROM nodeledger.parked_command AS c;
