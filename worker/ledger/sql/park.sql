-- Commands that wait for a hypervisor, in their order, and when it is asked next.
-- A node that is asked already is locked, so that it is not just being forgotten.
WITH waiting AS (
    SELECT * FROM unnest(
        :commands.node::text[], :commands.command::uuid[], :commands.body::bytea[], :commands.reply_to::text[],
        :commands.correlation_id::text[], :commands.traceparent::text[], :commands.user_id::text[],
        :commands.received_at::timestamptz[], :commands.blocking::boolean[], :commands.detail::text[],
        :commands.parked_at::timestamptz[]
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
