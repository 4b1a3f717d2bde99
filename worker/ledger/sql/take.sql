-- CPUs and devices that a batch gives to one instance alone.
WITH cpus AS (
    INSERT INTO nodeledger.pinned_cpu (node_id, cpu, instance)
    SELECT * FROM unnest($1::bigint[], $2::integer[], $3::uuid[])
)
INSERT INTO nodeledger.held_device (node_id, address, instance)
SELECT * FROM unnest($4::bigint[], $5::text[], $6::uuid[])
