-- What is held on a node, or by an instance.
SELECT
    a.instance, a.node, a.role, a.project, a.user_id, a.vcpus, a.pcpus, a.memory_mib, a.disk_mib, a.custom,
    a.assignment, a.claimed_at, a.lease_expires_at
FROM nodeledger.allocation_view AS a
WHERE ($1::text IS NULL OR a.node = $1) AND ($2::uuid IS NULL OR a.instance = $2)
ORDER BY a.node, a.instance, a.role;
