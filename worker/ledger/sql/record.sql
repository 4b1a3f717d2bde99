-- Everything that every batch writes, in one statement, which fails as a whole
-- where another worker was faster. One statement and not several in a transaction:
-- nodes are then locked for as long as the server works and not while a worker is
-- waited for, and a batch costs one round trip.
--
-- Its parts run in no order of their own and see the snapshot from its beginning,
-- except what they lock or update, which is read anew in its newest version. So
-- nothing that was read before the locks is relied upon: each part that writes
-- waits for the check of the generations, instances and commands are compared by
-- the UPDATE itself, and at the end it is counted whether all of them were hit.
-- A conflict raises an error and does not filter rows, as parts that ran already
-- are undone by nothing else.
WITH locked AS (
    -- in the order of the ids, so that no two batches wait for each other
    SELECT id, generation, stamp FROM nodeledger.node WHERE id = ANY (:checks.id::bigint[]) ORDER BY id FOR UPDATE
),
checked AS (
    -- compared as a whole: a node that was removed makes the list shorter
    SELECT
        CASE
            WHEN
                coalesce(array_agg(generation ORDER BY id), '{}') = :checks.generation::bigint[]
                AND coalesce(array_agg(stamp ORDER BY id), '{}') = :checks.stamp::bigint[]
            THEN true
            ELSE nodeledger.conflict('a node')
        END AS unchanged
    FROM locked
),
nodes AS (
    UPDATE nodeledger.node AS n SET
        generation = x.generation, stamp = x.stamp, counters = x.counters::text[], used = x.used::bigint[],
        failed_builds = x.failed_builds, parked = x.parked, reachable = x.reachable, observed_at = x.observed_at
    FROM unnest(
        :nodes.id::bigint[], :nodes.generation::bigint[], :nodes.stamp::bigint[], :nodes.counters::text[],
        :nodes.used::text[], :nodes.failed_builds::bigint[], :nodes.parked::bigint[], :nodes.reachable::boolean[],
        :nodes.observed_at::timestamptz[]
    ) AS x (id, generation, stamp, counters, used, failed_builds, parked, reachable, observed_at)
    WHERE n.id = x.id AND (SELECT unchanged FROM checked)
),
answers AS (
    INSERT INTO nodeledger.command AS c
        (id, fingerprint, kind, status, node, instance, received_at, codes, reply_to, correlation_id, traceparent,
        outcome, at)
    SELECT x.id, x.fingerprint, x.kind, x.status, x.node, x.instance, x.received_at, x.codes::text[], x.reply_to,
        x.correlation_id, x.traceparent, x.outcome, :now::timestamptz
    FROM unnest(
        :answers.id::uuid[], :answers.fingerprint::uuid[], :answers.kind::text[], :answers.status::text[],
        :answers.node::text[], :answers.instance::uuid[], :answers.received_at::timestamptz[],
        :answers.codes::text[], :answers.reply_to::text[], :answers.correlation_id::text[],
        :answers.traceparent::text[], :answers.outcome::text[]
    ) AS x (
        id, fingerprint, kind, status, node, instance, received_at, codes, reply_to, correlation_id, traceparent, outcome
    )
    WHERE (SELECT unchanged FROM checked)
    ON CONFLICT (id) DO UPDATE SET
        status = excluded.status, codes = excluded.codes, outcome = excluded.outcome, at = excluded.at
    -- only the status that was read is replaced; of a command that was not known then (null) none is
    WHERE
        (c.id, c.status) IN (
            SELECT s.id, s.before FROM unnest(:answers.id::uuid[], :answers.before::text[]) AS s (id, before)
        )
        AND c.fingerprint = excluded.fingerprint
    RETURNING 1
),
instances AS (
    SELECT * FROM unnest(
        :instances.id::uuid[], :instances.before::bigint[], :instances.version::bigint[], :instances.project::text[],
        :instances.user_id::text[], :instances.revision::bigint[], :instances.state::text[], :instances.task::text[],
        :instances.os_type::text[], :instances.move::text[], :instances.stranded::text[],
        :instances.deleted_at::timestamptz[], :instances.idle_since::timestamptz[]
    ) AS x (
        id, before, version, project, user_id, revision, state, task, os_type, move, stranded, deleted_at, idle_since
    )
    WHERE (SELECT unchanged FROM checked)
),
new_instances AS (
    INSERT INTO nodeledger.instance
        (id, version, project, user_id, revision, state, task, os_type, move, stranded, deleted_at, idle_since)
    SELECT id, version, project, user_id, revision, state, task, os_type, move, stranded, deleted_at, idle_since
    FROM instances
    WHERE before = 0
    ON CONFLICT (id) DO NOTHING -- one that somebody else made is missed by the count: a conflict, not a violation
    RETURNING 1
),
changed_instances AS (
    -- those that the batch only looked at are written as they are: so nobody changes them meanwhile
    UPDATE nodeledger.instance AS i SET
        version = x.version, project = x.project, user_id = x.user_id, revision = x.revision, state = x.state,
        task = x.task, os_type = x.os_type, move = x.move, stranded = x.stranded, deleted_at = x.deleted_at,
        idle_since = x.idle_since
    FROM instances AS x
    WHERE i.id = x.id AND i.version = x.before AND x.before > 0
    RETURNING 1
),
allocations AS (
    -- arrays of arrays would have to be of one length and come out flat: each travels as a text
    INSERT INTO nodeledger.allocation
        (instance, node_id, role, request, full_charge, charge, pins, devices, assignment, claimed_at, lease_expires_at)
    SELECT x.instance, x.node_id, x.role, x.request::jsonb, x.full_charge::jsonb, x.charge::jsonb, x.pins::integer[],
        x.devices::text[], x.assignment::jsonb, x.claimed_at, x.lease_expires_at
    FROM unnest(
        :allocations.instance::uuid[], :allocations.node_id::bigint[], :allocations.role::text[],
        :allocations.request::text[], :allocations.full_charge::text[], :allocations.charge::text[],
        :allocations.pins::text[], :allocations.devices::text[], :allocations.assignment::text[],
        :allocations.claimed_at::timestamptz[], :allocations.lease_expires_at::timestamptz[]
    ) AS x (
        instance, node_id, role, request, full_charge, charge, pins, devices, assignment, claimed_at, lease_expires_at
    )
    WHERE (SELECT unchanged FROM checked)
),
cpus AS (
    -- no ON CONFLICT here and for devices: held twice is a fault, which the primary keys refuse
    INSERT INTO nodeledger.pinned_cpu (node_id, cpu, instance)
    SELECT x.node_id, x.cpu, x.instance
    FROM unnest(:cpus.node_id::bigint[], :cpus.cpu::integer[], :cpus.instance::uuid[]) AS x (node_id, cpu, instance)
    WHERE (SELECT unchanged FROM checked)
),
devices AS (
    INSERT INTO nodeledger.held_device (node_id, address, instance)
    SELECT x.node_id, x.address, x.instance
    FROM unnest(:devices.node_id::bigint[], :devices.address::text[], :devices.instance::uuid[])
        AS x (node_id, address, instance)
    WHERE (SELECT unchanged FROM checked)
),
entries AS (
    INSERT INTO nodeledger.entry
        (node, instance, project, user_id, command, kind, counters, deltas, used_after, pins, devices, at)
    SELECT x.node, x.instance, x.project, x.user_id, x.command, x.kind, x.counters::text[], x.deltas::bigint[],
        x.used_after::bigint[], x.pins::integer[], x.devices::text[], :now::timestamptz
    FROM unnest(
        :entries.node::text[], :entries.instance::uuid[], :entries.project::text[], :entries.user_id::text[],
        :entries.command::uuid[], :entries.kind::text[], :entries.counters::text[], :entries.deltas::text[],
        :entries.used_after::text[], :entries.pins::text[], :entries.devices::text[]
    ) WITH ORDINALITY AS x (
        node, instance, project, user_id, command, kind, counters, deltas, used_after, pins, devices, ordinal
    )
    WHERE (SELECT unchanged FROM checked)
    ORDER BY x.ordinal -- seq is given in the order of the commands
),
outboxes AS (
    INSERT INTO nodeledger.outbox (id, at, commands)
    SELECT :outbox::uuid, :now::timestamptz, :answers.id::uuid[]
    WHERE :outbox::uuid IS NOT NULL
),
published AS (
    -- earlier batches, whose outcomes are out: nothing to check
    DELETE FROM nodeledger.outbox WHERE id = ANY (:published::uuid[])
)
SELECT
    (SELECT unchanged FROM checked)
    AND CASE (SELECT count(*) FROM answers)
        WHEN cardinality(:answers.id::uuid[]) THEN true ELSE nodeledger.conflict('a command')
    END
    AND CASE (SELECT count(*) FROM new_instances) + (SELECT count(*) FROM changed_instances)
        WHEN cardinality(:instances.id::uuid[]) THEN true ELSE nodeledger.conflict('an instance')
    END
