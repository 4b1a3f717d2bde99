-- Statements that would give the roles exactly the privileges they should have.
WITH write (relation, privileges) AS (
    VALUES
    ('installation', 'INSERT,UPDATE'),
    ('node', 'INSERT,UPDATE,DELETE'),
    ('node_profile', 'INSERT,UPDATE,DELETE'),
    ('former_name', 'INSERT,UPDATE,DELETE'),
    ('instance', 'INSERT,UPDATE'),
    ('allocation', 'INSERT,UPDATE,DELETE'),
    ('pinned_cpu', 'INSERT,UPDATE,DELETE'),
    ('held_device', 'INSERT,UPDATE,DELETE'),
    ('entry', 'INSERT'),
    ('command', 'INSERT,UPDATE'),
    ('outbox', 'INSERT,UPDATE,DELETE'),
    ('parked_command', 'INSERT,UPDATE,DELETE'),
    ('probe', 'INSERT,UPDATE,DELETE'),
    ('attempt', 'INSERT,UPDATE,DELETE'),
    ('drift', 'INSERT,UPDATE,DELETE'),
    ('host_load', 'INSERT,UPDATE,DELETE'),
    ('dead_letter', 'INSERT,UPDATE'),
    ('dead_letter_action', 'INSERT'),
    ('worker', 'INSERT,UPDATE,DELETE'),
    ('shard', 'INSERT,UPDATE,DELETE')
),
relation AS (
    SELECT c.relname AS name, c.relkind = 'v' AS is_view, coalesce(c.relacl, acldefault('r', c.relowner)) AS acl
    FROM pg_class AS c
    WHERE c.relnamespace = 'nodeledger'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
),
routine AS (
    SELECT p.oid::regprocedure::text AS name, coalesce(p.proacl, acldefault('f', p.proowner)) AS acl
    FROM pg_proc AS p
    WHERE p.pronamespace = 'nodeledger'::regnamespace
),
wanted (privilege, object, role) AS (
    SELECT 'SELECT', format('nodeledger.%I', r.name), 'nodeledger_worker' FROM relation AS r
    UNION ALL
    SELECT 'SELECT', format('nodeledger.%I', r.name), 'nodeledger_reader' FROM relation AS r WHERE r.is_view
    UNION ALL
    SELECT p.privilege, format('nodeledger.%I', w.relation), 'nodeledger_worker'
    FROM write AS w
    CROSS JOIN LATERAL string_to_table(w.privileges, ',') AS p (privilege)
    UNION ALL
    SELECT 'EXECUTE', format('FUNCTION %s', r.name), 'nodeledger_worker' FROM routine AS r
    UNION ALL
    SELECT 'USAGE', 'SCHEMA nodeledger', o.role
    FROM (VALUES ('nodeledger_worker'), ('nodeledger_reader')) AS o (role)
),
granted (privilege, object, role) AS (
    SELECT g.privilege_type, g.object, coalesce(o.rolname, 'PUBLIC')
    FROM (
        SELECT a.privilege_type, format('nodeledger.%I', r.name), a.grantee
        FROM relation AS r CROSS JOIN LATERAL aclexplode(r.acl) AS a
        UNION ALL
        SELECT a.privilege_type, format('FUNCTION %s', r.name), a.grantee
        FROM routine AS r CROSS JOIN LATERAL aclexplode(r.acl) AS a
        UNION ALL
        SELECT a.privilege_type, 'SCHEMA nodeledger', a.grantee
        FROM pg_namespace AS n
        CROSS JOIN LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS a
        WHERE n.nspname = 'nodeledger'
    ) AS g (privilege_type, object, grantee)
    LEFT JOIN pg_roles AS o ON o.oid = g.grantee
    WHERE g.grantee = 0 OR o.rolname IN ('nodeledger_worker', 'nodeledger_reader')
)
SELECT format('GRANT %s ON %s TO %I', d.privilege, d.object, d.role) AS statement
FROM (TABLE wanted EXCEPT TABLE granted) AS d
UNION ALL
SELECT format('REVOKE %s ON %s FROM %s', d.privilege, d.object, d.role)
FROM (TABLE granted EXCEPT TABLE wanted) AS d
ORDER BY statement;
