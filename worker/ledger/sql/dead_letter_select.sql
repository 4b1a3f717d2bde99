-- Letters of a filter in the order they came, after an id; without bodies unless asked for.
SELECT
    d.id, d.reason, d.detail, d.fingerprint, d.node, d.kind, d.command, d.first_seen, d.last_seen, d.attempts,
    d.state, octet_length(d.body) AS size_bytes,
    CASE WHEN $9::boolean THEN d.body END AS body,
    CASE WHEN $9::boolean THEN d.headers END AS headers
FROM nodeledger.dead_letter AS d
WHERE
    d.id > $1
    AND ($2::bigint[] IS NULL OR d.id = ANY ($2))
    AND ($3::text[] IS NULL OR d.state = ANY ($3))
    AND ($4::text IS NULL OR d.reason = $4)
    AND ($5::text IS NULL OR d.node = $5)
    AND ($6::text IS NULL OR d.kind = $6)
    AND ($7::text IS NULL OR d.fingerprint = $7)
ORDER BY d.id
LIMIT $8;
