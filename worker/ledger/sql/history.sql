-- Lines of the ledger, the newest first, before a line's number.
SELECT
    h.seq, h.at, h.node, h.instance, h.project, h.user_id, h.command, h.kind, h.counters, h.deltas, h.used_after,
    h.pins, h.devices
FROM nodeledger.history_view AS h
WHERE
    ($1::bigint IS NULL OR h.seq < $1)
    AND ($2::text IS NULL OR h.node = $2)
    AND ($3::uuid IS NULL OR h.instance = $3)
    AND ($4::text IS NULL OR h.project = $4)
    AND ($5::timestamptz IS NULL OR h.at >= $5)
    AND ($6::timestamptz IS NULL OR h.at < $6)
ORDER BY h.seq DESC
LIMIT $7;
