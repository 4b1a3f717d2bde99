-- What audits found to differ: what is over, what is still there, and what is new.
WITH ended AS (
    UPDATE nodeledger.drift SET resolved_at = :now::timestamptz WHERE id = ANY (:ended::bigint[])
),
kept AS (
    UPDATE nodeledger.drift AS d SET
        last_seen = :now::timestamptz, detail = x.detail, ledger = x.ledger::jsonb, hypervisor = x.hypervisor::jsonb
    FROM unnest(:kept.id::bigint[], :kept.detail::text[], :kept.ledger::text[], :kept.hypervisor::text[])
        AS x (id, detail, ledger, hypervisor)
    WHERE d.id = x.id
)
INSERT INTO nodeledger.drift (node_id, instance, kind, detail, ledger, hypervisor, first_seen, last_seen)
SELECT x.node_id, x.instance, x.kind, x.detail, x.ledger::jsonb, x.hypervisor::jsonb, :now, :now
FROM unnest(
    :begun.node_id::bigint[], :begun.instance::uuid[], :begun.kind::text[], :begun.detail::text[],
    :begun.ledger::text[], :begun.hypervisor::text[]
) WITH ORDINALITY AS x (node_id, instance, kind, detail, ledger, hypervisor, ordinal)
ORDER BY x.ordinal
