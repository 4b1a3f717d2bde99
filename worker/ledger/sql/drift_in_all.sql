-- How much differs now over all nodes, by kind.
SELECT kind, count(*) AS amount FROM nodeledger.drift WHERE resolved_at IS NULL GROUP BY kind
