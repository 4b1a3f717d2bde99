-- Commands that wait for a hypervisor, in their order, and when it is asked next.
-- A node that is asked already is locked, so that it is not just being forgotten.
WITH waiting AS (
    SELECT * FROM unnest(
        $1::text[], $2::uuid[], $3::bytea[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[],
        $9::boolean[], $10::text[], $11::timestamptz[]
    ) WITH ORDINALITY AS x (
        node, command, body, reply_to, correlation_id, traceparent, user_id, received_at, blocking, detail, parked_at,
        ordinal
    )
),
probes AS (
    INSERT INTO nodeledger.probe (node, next_at)
    SELECT DISTINCT node, now() FROM waiting ORDER BY node
    ON CONFLICT (node) DO UPDATE SET next_at = probe.next_at
)
INSERT INTO nodeledger.parked_command
    (node, command, body, reply_to, correlation_id, traceparent, user_id, received_at, blocking, detail, parked_at)
SELECT node, command, body, reply_to, correlation_id, traceparent, user_id, received_at, blocking, detail, parked_at
FROM waiting
ORDER BY ordinal
