-- Entries whose use afterwards is not the use before plus the change. Use before is
-- added up from the changes and not taken from the line before, so that a wrong line
-- accuses itself and not its successor. The order is that of seq: entries of one
-- batch have one time, and a node's lock keeps its entries in the order of commits.
SELECT
    'chain' AS rule,
    r.node,
    r.instance,
    r.counter AS subject,
    format('entry %s says %s, the entries up to it add up to %s', r.seq, r.used_after, r.amount) AS detail
FROM (
    SELECT
        e.seq,
        e.node,
        e.instance,
        c.counter,
        c.used_after,
        sum(c.delta) OVER (PARTITION BY e.node, c.counter ORDER BY e.seq) AS amount
    FROM nodeledger.entry AS e
    CROSS JOIN LATERAL unnest(e.counters, e.deltas, e.used_after) AS c (counter, delta, used_after)
) AS r
WHERE r.amount <> r.used_after;
