-- The nodes ($1) that a batch touches, and what is known of its commands ($2) and
-- instances ($3), all at one moment. The first row is the database's time: no
-- batch whose changes are seen here has a later one.
SELECT
    'now' AS what,
    NULL::uuid AS id,
    to_json(clock_timestamp())::text AS doc,
    NULL::text AS name,
    NULL::bigint AS node_id,
    NULL::bigint AS generation,
    NULL::bigint AS stamp
UNION ALL
SELECT 'node', NULL, NULL, n.name, n.id, n.generation, n.stamp
FROM nodeledger.node AS n
WHERE n.name = ANY ($1::text[])
UNION ALL
SELECT
    'command',
    c.id,
    json_build_object(
        'fingerprint', c.fingerprint, 'status', c.status, 'kind', c.kind, 'node', c.node, 'outcome', c.outcome
    )::text,
    NULL,
    NULL,
    NULL,
    NULL
FROM nodeledger.command AS c
WHERE c.id = ANY ($2::uuid[])
UNION ALL
SELECT
    'instance',
    i.id,
    json_build_object(
        'version', i.version,
        'project', i.project,
        'user', i.user_id,
        'revision', i.revision,
        'state', i.state,
        'task', i.task,
        'os_type', i.os_type,
        'move', i.move,
        'stranded', i.stranded,
        'deleted_at', i.deleted_at,
        'holdings', (
            SELECT
                json_agg(
                    json_build_object(
                        'node', n.name,
                        'role', a.role,
                        'request', a.request::text,
                        'charge', a.full_charge,
                        'pins', a.pins,
                        'devices', a.devices,
                        'assignment', a.assignment,
                        'claimed_at', a.claimed_at,
                        'lease_expires_at', a.lease_expires_at
                    )
                    ORDER BY a.role DESC
                )
            FROM nodeledger.allocation AS a
            JOIN nodeledger.node AS n ON n.id = a.node_id
            WHERE a.instance = i.id
        )
    )::text,
    NULL,
    NULL,
    NULL,
    NULL
FROM nodeledger.instance AS i
WHERE i.id = ANY ($3::uuid[])
