SELECT d.policy, d.inventory, d.counters, d.parked, d.host_uuid
FROM nodeledger.node_detail_view AS d
WHERE d.node = $1;
