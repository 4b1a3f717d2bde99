-- How busy hosts are, those of these names or all.
SELECT l.node, l.at, l.user_percent, l.kernel_percent, l.iowait_percent, l.idle_percent, l.memory_used_mib
FROM nodeledger.node_load AS l
WHERE $1::text[] IS NULL OR l.node = ANY ($1)
ORDER BY l.node;
