-- Whether there was a node by a moment: that of its first line in the ledger, or of its registration as far as that is
-- still known; of one that is there, and of which neither is, it is assumed.
SELECT coalesce(
    (
        SELECT min(k.at) <= $2
        FROM (
            SELECT h.at FROM nodeledger.history_view AS h WHERE h.node = $1
            UNION ALL
            SELECT o.at FROM nodeledger.outcome_view AS o
            WHERE o.node = $1 AND o.kind = 'node.put' AND o.status = 'applied'
        ) AS k
    ),
    EXISTS (SELECT FROM nodeledger.node_status AS n WHERE n.node = $1)
);
