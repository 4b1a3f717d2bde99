-- How busy the hosts are, in percent: what so many of them, a tenth, half and so on, are at or below. A host that was
-- not looked at for long tells nothing of now.
SELECT
    x.what,
    percentile_disc(ARRAY[0.1, 0.5, 0.9, 0.99]::float8[]) WITHIN GROUP (ORDER BY x.amount) AS amounts
FROM nodeledger.host_load AS l
JOIN nodeledger.node_profile AS p ON p.node_id = l.node_id
CROSS JOIN LATERAL (
    VALUES
    ('user', l.user_percent),
    ('kernel', l.kernel_percent),
    ('iowait', l.iowait_percent),
    ('idle', l.idle_percent),
    ('memory', 100 * l.memory_used_mib / nullif((p.capacity -> 'memory_mib' ->> 'total')::bigint, 0))
) AS x (what, amount)
WHERE l.at > now() - interval '1 hour' AND x.amount IS NOT NULL
GROUP BY x.what
