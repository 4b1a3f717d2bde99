SELECT d.policy, d.inventory, d.counters, d.parked, d.host_uuid, d.former_names
FROM nodeledger.node_detail_view AS d
WHERE d.node = $1;
