-- Everything that every batch writes, in one statement, which fails as a whole
-- where another worker was faster. The nodes that the batch was decided on ($1,
-- with their generations $2) are locked first, in the order of their ids, so that
-- no two batches wait for each other.
WITH locked AS (
    SELECT id, generation FROM nodeledger.node WHERE id = ANY ($1::bigint[]) ORDER BY id FOR UPDATE
),
checked AS (
    SELECT
        CASE
            WHEN coalesce(array_agg(generation ORDER BY id), '{}') = $2::bigint[] THEN true
            ELSE nodeledger.conflict('a node')
        END AS unchanged
    FROM locked
),
nodes AS (
    UPDATE nodeledger.node AS n SET
        generation = x.generation, counters = x.counters::text[], used = x.used::bigint[],
        failed_builds = x.failed_builds, parked = x.parked, reachable = x.reachable, observed_at = x.observed_at
    FROM unnest(
        $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::boolean[],
        $10::timestamptz[]
    ) AS x (id, generation, counters, used, failed_builds, parked, reachable, observed_at)
    WHERE n.id = x.id AND (SELECT unchanged FROM checked)
),
answers AS (
    INSERT INTO nodeledger.command AS c
        (id, fingerprint, kind, status, node, instance, received_at, codes, reply_to, correlation_id, traceparent,
        outcome, at)
    SELECT x.id, x.fingerprint, x.kind, x.status, x.node, x.instance, x.received_at, x.codes::text[], x.reply_to,
        x.correlation_id, x.traceparent, x.outcome, $66::timestamptz
    FROM unnest(
        $11::uuid[], $13::uuid[], $14::text[], $15::text[], $16::text[], $17::uuid[], $18::timestamptz[], $19::text[],
        $20::text[], $21::text[], $22::text[], $23::text[]
    ) AS x (
        id, fingerprint, kind, status, node, instance, received_at, codes, reply_to, correlation_id, traceparent, outcome
    )
    WHERE (SELECT unchanged FROM checked)
    ON CONFLICT (id) DO UPDATE SET
        status = excluded.status, codes = excluded.codes, outcome = excluded.outcome, at = excluded.at
    WHERE (c.id, c.status) IN (SELECT * FROM unnest($11::uuid[], $12::text[])) AND c.fingerprint = excluded.fingerprint
    RETURNING 1
),
instances AS (
    SELECT * FROM unnest(
        $24::uuid[], $25::bigint[], $26::bigint[], $27::text[], $28::text[], $29::bigint[], $30::text[], $31::text[],
        $32::text[], $33::text[], $34::text[], $35::timestamptz[]
    ) AS x (id, before, version, project, user_id, revision, state, task, os_type, move, stranded, deleted_at)
    WHERE (SELECT unchanged FROM checked)
),
new_instances AS (
    INSERT INTO nodeledger.instance
        (id, version, project, user_id, revision, state, task, os_type, move, stranded, deleted_at)
    SELECT id, version, project, user_id, revision, state, task, os_type, move, stranded, deleted_at
    FROM instances
    WHERE before = 0
    ON CONFLICT (id) DO NOTHING
    RETURNING 1
),
changed_instances AS (
    UPDATE nodeledger.instance AS i SET
        version = x.version, project = x.project, user_id = x.user_id, revision = x.revision, state = x.state,
        task = x.task, os_type = x.os_type, move = x.move, stranded = x.stranded, deleted_at = x.deleted_at
    FROM instances AS x
    WHERE i.id = x.id AND i.version = x.before AND x.before > 0
    RETURNING 1
),
allocations AS (
    INSERT INTO nodeledger.allocation
        (instance, node_id, role, request, full_charge, charge, pins, devices, assignment, claimed_at, lease_expires_at)
    SELECT x.instance, x.node_id, x.role, x.request::jsonb, x.full_charge::jsonb, x.charge::jsonb, x.pins::integer[],
        x.devices::text[], x.assignment::jsonb, x.claimed_at, x.lease_expires_at
    FROM unnest(
        $36::uuid[], $37::bigint[], $38::text[], $39::text[], $40::text[], $41::text[], $42::text[], $43::text[],
        $44::text[], $45::timestamptz[], $46::timestamptz[]
    ) AS x (
        instance, node_id, role, request, full_charge, charge, pins, devices, assignment, claimed_at, lease_expires_at
    )
    WHERE (SELECT unchanged FROM checked)
),
cpus AS (
    INSERT INTO nodeledger.pinned_cpu (node_id, cpu, instance)
    SELECT x.node_id, x.cpu, x.instance
    FROM unnest($47::bigint[], $48::integer[], $49::uuid[]) AS x (node_id, cpu, instance)
    WHERE (SELECT unchanged FROM checked)
),
devices AS (
    INSERT INTO nodeledger.held_device (node_id, address, instance)
    SELECT x.node_id, x.address, x.instance
    FROM unnest($50::bigint[], $51::text[], $52::uuid[]) AS x (node_id, address, instance)
    WHERE (SELECT unchanged FROM checked)
),
entries AS (
    INSERT INTO nodeledger.entry
        (node, instance, project, user_id, command, kind, counters, deltas, used_after, pins, devices, at)
    SELECT x.node, x.instance, x.project, x.user_id, x.command, x.kind, x.counters::text[], x.deltas::bigint[],
        x.used_after::bigint[], x.pins::integer[], x.devices::text[], $66::timestamptz
    FROM unnest(
        $53::text[], $54::uuid[], $55::text[], $56::text[], $57::uuid[], $58::text[], $59::text[], $60::text[],
        $61::text[], $62::text[], $63::text[]
    ) WITH ORDINALITY AS x (
        node, instance, project, user_id, command, kind, counters, deltas, used_after, pins, devices, ordinal
    )
    WHERE (SELECT unchanged FROM checked)
    ORDER BY x.ordinal
),
outboxes AS (
    INSERT INTO nodeledger.outbox (id, at, commands)
    SELECT $64::uuid, $66::timestamptz, $11::uuid[]
    WHERE $64::uuid IS NOT NULL
),
published AS (
    DELETE FROM nodeledger.outbox WHERE id = ANY ($65::uuid[])
)
SELECT
    (SELECT unchanged FROM checked)
    AND CASE (SELECT count(*) FROM answers)
        WHEN cardinality($11::uuid[]) THEN true ELSE nodeledger.conflict('a command')
    END
    AND CASE (SELECT count(*) FROM new_instances) + (SELECT count(*) FROM changed_instances)
        WHEN cardinality($24::uuid[]) THEN true ELSE nodeledger.conflict('an instance')
    END
