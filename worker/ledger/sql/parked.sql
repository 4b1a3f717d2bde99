-- The first parked commands of a node.
SELECT seq, node, command, body, reply_to, correlation_id, traceparent, user_id, received_at, parked_at,
    blocking, detail
FROM nodeledger.parked_command
WHERE node = $1
ORDER BY seq
LIMIT $2
