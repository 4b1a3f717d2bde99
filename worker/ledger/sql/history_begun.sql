-- Whether there was a node up to a moment, as far as is still known: it has a line in the ledger, or was registered;
-- of one that is there, and whose registration is past its retention, it is assumed.
SELECT
    EXISTS (SELECT FROM nodeledger.history_view AS h WHERE h.node = $1 AND h.at <= $2)
    OR coalesce(
        (
            SELECT min(o.at) <= $2
            FROM nodeledger.outcome_view AS o
            WHERE o.node = $1 AND o.kind = 'node.put' AND o.status = 'applied'
        ),
        EXISTS (SELECT FROM nodeledger.node_status AS n WHERE n.node = $1)
    );
