-- Whole parked commands by their ids, in their order.
SELECT seq, node, command, body, reply_to, correlation_id, traceparent, user_id, received_at, parked_at,
    blocking, detail
FROM nodeledger.parked_command
WHERE command = ANY ($1::uuid[])
ORDER BY seq;
