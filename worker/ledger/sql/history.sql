-- Lines of the ledger, the newest first, before a line's number.
SELECT
    h.seq, h.at, h.node, h.instance, h.project, h.user_id, h.command, h.kind, h.counters, h.deltas, h.used_after,
    h.pins, h.devices
FROM nodeledger.history_view AS h
WHERE
    (:before::bigint IS NULL OR h.seq < :before)
    AND (:node::text IS NULL OR h.node = :node)
    AND (:instance::uuid IS NULL OR h.instance = :instance)
    AND (:project::text IS NULL OR h.project = :project)
    AND (:since::timestamptz IS NULL OR h.at >= :since)
    AND (:until::timestamptz IS NULL OR h.at < :until)
ORDER BY h.seq DESC
LIMIT :limit;
