-- Keeps letters; one that is there already, by digest and reason, is counted and open again. Whose it is and where its
-- answer goes is told by the arrival that went through the fewest hands: the sender's own, and no forgery of it.
INSERT INTO nodeledger.dead_letter AS d (
    digest, reason, detail, fingerprint, node, kind, command, body, headers, attempts, first_seen, last_seen
)
SELECT
    l.digest, l.reason, l.detail, l.fingerprint, l.node, l.kind, l.command, l.body, l.headers::jsonb, l.attempts,
    now(), now()
FROM unnest(
    :letters.digest::uuid[], :letters.reason::text[], :letters.detail::text[], :letters.fingerprint::text[],
    :letters.node::text[], :letters.kind::text[], :letters.command::uuid[], :letters.body::bytea[],
    :letters.headers::text[], :letters.attempts::bigint[]
) WITH ORDINALITY AS l (
    digest, reason, detail, fingerprint, node, kind, command, body, headers, attempts, ordinal
)
ORDER BY l.ordinal
ON CONFLICT (digest, reason) DO UPDATE SET
    detail = excluded.detail,
    fingerprint = excluded.fingerprint,
    headers = CASE
        WHEN length(excluded.headers ->> 'x-nodeledger-senders') > length(d.headers ->> 'x-nodeledger-senders')
            THEN d.headers
        ELSE excluded.headers
    END,
    attempts = d.attempts + excluded.attempts,
    last_seen = excluded.last_seen,
    state = 'open';
