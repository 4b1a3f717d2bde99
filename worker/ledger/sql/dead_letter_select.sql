-- Letters of a filter in the order they came, after an id; without bodies unless asked for.
SELECT
    d.id, d.reason, d.detail, d.fingerprint, d.node, d.kind, d.command, d.first_seen, d.last_seen, d.attempts,
    d.state, octet_length(d.body) AS size_bytes,
    CASE WHEN :bodies::boolean THEN d.body END AS body,
    CASE WHEN :bodies::boolean THEN d.headers END AS headers
FROM nodeledger.dead_letter AS d
WHERE
    d.id > :after
    AND (:ids::bigint[] IS NULL OR d.id = ANY (:ids))
    AND (:states::text[] IS NULL OR d.state = ANY (:states))
    AND (:reason::text IS NULL OR d.reason = :reason)
    AND (:node::text IS NULL OR d.node = :node)
    AND (:kind::text IS NULL OR d.kind = :kind)
    AND (:group::text IS NULL OR d.fingerprint = :group)
ORDER BY d.id
LIMIT :limit;
