SELECT p.seq, p.node, p.command, p.received_at, p.parked_at, p.size_bytes
FROM nodeledger.parked_view AS p
WHERE p.seq > $1 AND ($2::text IS NULL OR p.node = $2)
ORDER BY p.seq
LIMIT $3;
