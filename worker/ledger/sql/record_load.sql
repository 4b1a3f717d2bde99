-- How busy hosts are, as they were just looked at.
INSERT INTO nodeledger.host_load
    (node_id, at, user_percent, kernel_percent, iowait_percent, idle_percent, memory_used_mib)
SELECT
    x.node_id, :now::timestamptz, x.user_percent, x.kernel_percent, x.iowait_percent, x.idle_percent, x.memory_used_mib
FROM unnest(
    :loads.node_id::bigint[], :loads.user_percent::bigint[], :loads.kernel_percent::bigint[],
    :loads.iowait_percent::bigint[], :loads.idle_percent::bigint[], :loads.memory_used_mib::bigint[]
) AS x (node_id, user_percent, kernel_percent, iowait_percent, idle_percent, memory_used_mib)
ON CONFLICT (node_id) DO UPDATE SET
    at = excluded.at, user_percent = excluded.user_percent, kernel_percent = excluded.kernel_percent,
    iowait_percent = excluded.iowait_percent, idle_percent = excluded.idle_percent,
    memory_used_mib = excluded.memory_used_mib
