-- Everything that every batch writes, in one statement. It answers how many
-- commands and instances were written: fewer than given means that another
-- worker was faster.
WITH answers AS (
    INSERT INTO nodeledger.command AS c
        (id, fingerprint, kind, status, node, instance, received_at, codes, reply_to, correlation_id, traceparent,
        outcome, at)
    SELECT x.id, x.fingerprint, x.kind, x.status, x.node, x.instance, x.received_at, x.codes::text[], x.reply_to,
        x.correlation_id, x.traceparent, x.outcome, $57::timestamptz
    FROM unnest(
        $1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::timestamptz[], $8::text[],
        $9::text[], $10::text[], $11::text[], $12::text[]
    ) AS x (
        id, fingerprint, kind, status, node, instance, received_at, codes, reply_to, correlation_id, traceparent, outcome
    )
    ON CONFLICT (id) DO UPDATE SET
        status = excluded.status, codes = excluded.codes, outcome = excluded.outcome, at = excluded.at
    WHERE c.status IN ('parked', 'dead') AND c.fingerprint = excluded.fingerprint
    RETURNING 1
),
instances AS (
    SELECT * FROM unnest(
        $13::uuid[], $14::bigint[], $15::bigint[], $16::text[], $17::text[], $18::bigint[], $19::text[], $20::text[],
        $21::text[], $22::text[], $23::text[], $24::timestamptz[]
    ) AS x (id, before, version, project, user_id, revision, state, task, os_type, move, stranded, deleted_at)
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
        $25::uuid[], $26::bigint[], $27::text[], $28::text[], $29::text[], $30::text[], $31::text[], $32::text[],
        $33::text[], $34::timestamptz[], $35::timestamptz[]
    ) AS x (
        instance, node_id, role, request, full_charge, charge, pins, devices, assignment, claimed_at, lease_expires_at
    )
),
entries AS (
    INSERT INTO nodeledger.entry
        (node, instance, project, user_id, command, kind, counters, deltas, used_after, pins, devices, at)
    SELECT x.node, x.instance, x.project, x.user_id, x.command, x.kind, x.counters::text[], x.deltas::bigint[],
        x.used_after::bigint[], x.pins::integer[], x.devices::text[], $57::timestamptz
    FROM unnest(
        $36::text[], $37::uuid[], $38::text[], $39::text[], $40::uuid[], $41::text[], $42::text[], $43::text[],
        $44::text[], $45::text[], $46::text[]
    ) WITH ORDINALITY AS x (
        node, instance, project, user_id, command, kind, counters, deltas, used_after, pins, devices, ordinal
    )
    ORDER BY x.ordinal
),
nodes AS (
    UPDATE nodeledger.node AS n SET
        generation = x.generation, counters = x.counters::text[], used = x.used::bigint[],
        failed_builds = x.failed_builds, parked = x.parked, reachable = x.reachable, observed_at = x.observed_at
    FROM unnest(
        $47::bigint[], $48::bigint[], $49::text[], $50::text[], $51::bigint[], $52::bigint[], $53::boolean[],
        $54::timestamptz[]
    ) AS x (id, generation, counters, used, failed_builds, parked, reachable, observed_at)
    WHERE n.id = x.id
),
outboxes AS (
    INSERT INTO nodeledger.outbox (id, at, commands)
    SELECT $55::uuid, $57::timestamptz, $1::uuid[]
    WHERE $55::uuid IS NOT NULL
),
published AS (
    DELETE FROM nodeledger.outbox WHERE id = ANY ($56::uuid[])
)
SELECT
    (SELECT count(*) FROM answers) AS answers,
    (SELECT count(*) FROM new_instances) + (SELECT count(*) FROM changed_instances) AS instances
