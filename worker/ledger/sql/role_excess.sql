-- What roles ($1) have beside their grants: attributes that lift every restriction, memberships in other roles, what
-- everybody may do in this database, settings of the reader ($2) that bound what it takes, which it may have changed
-- itself, and rights to write or lock that somebody else has.
WITH reader (name, wanted) AS (
    VALUES ('default_transaction_read_only', 'on'), ('temp_file_limit', '1GB')
),
present AS (
    SELECT s.setdatabase, split_part(c.setting, '=', 1) AS name, substr(c.setting, strpos(c.setting, '=') + 1) AS value
    FROM pg_db_role_setting AS s
    JOIN pg_roles AS r ON r.oid = s.setrole
    CROSS JOIN LATERAL unnest(s.setconfig) AS c (setting)
    WHERE r.rolname = $2::text
)
SELECT format('ALTER ROLE %I NO%s', r.rolname, a.name) AS statement
FROM pg_roles AS r
CROSS JOIN LATERAL (
    VALUES
    ('SUPERUSER', r.rolsuper), ('CREATEDB', r.rolcreatedb), ('CREATEROLE', r.rolcreaterole),
    ('REPLICATION', r.rolreplication), ('BYPASSRLS', r.rolbypassrls)
) AS a (name, has)
WHERE r.rolname = ANY ($1::text[]) AND a.has
UNION ALL
SELECT format('REVOKE %I FROM %I', o.rolname, r.rolname)
FROM pg_auth_members AS m
JOIN pg_roles AS r ON r.oid = m.member
JOIN pg_roles AS o ON o.oid = m.roleid
WHERE r.rolname = ANY ($1::text[])
UNION ALL
SELECT format('ALTER ROLE %I CONNECTION LIMIT 20', r.rolname)
FROM pg_roles AS r
WHERE r.rolname = $2::text AND r.rolconnlimit < 0
UNION ALL
SELECT format('ALTER ROLE %I SET %I = %L', $2::text, w.name, w.wanted)
FROM reader AS w
WHERE NOT EXISTS (
    SELECT FROM present AS p WHERE p.setdatabase = 0 AND p.name = w.name AND p.value = w.wanted
)
UNION ALL
SELECT format('ALTER ROLE %I IN DATABASE %I RESET %I', $2::text, d.datname, p.name)
FROM present AS p
JOIN pg_database AS d ON d.oid = p.setdatabase
WHERE d.datname = current_database() AND p.name IN (SELECT w.name FROM reader AS w)
UNION ALL
SELECT format('REVOKE %s ON DATABASE %I FROM %s', a.privilege_type, d.datname, coalesce(quote_ident(o.rolname), 'PUBLIC'))
FROM pg_database AS d
CROSS JOIN LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
LEFT JOIN pg_roles AS o ON o.oid = a.grantee
WHERE
    d.datname = current_database()
    AND (a.grantee = 0 OR (o.rolname = ANY ($1::text[]) AND a.privilege_type <> 'CONNECT'))
UNION ALL
SELECT format('REVOKE CREATE ON SCHEMA %I FROM %s', n.nspname, coalesce(quote_ident(o.rolname), 'PUBLIC'))
FROM pg_namespace AS n
CROSS JOIN LATERAL aclexplode(n.nspacl) AS a
LEFT JOIN pg_roles AS o ON o.oid = a.grantee
WHERE
    n.nspname <> 'nodeledger' AND a.privilege_type = 'CREATE'
    AND (a.grantee = 0 OR o.rolname = ANY ($1::text[]))
UNION ALL
SELECT format('REVOKE %s ON nodeledger.%I FROM %I', a.privilege_type, c.relname, o.rolname)
FROM pg_class AS c
CROSS JOIN LATERAL aclexplode(c.relacl) AS a
JOIN pg_roles AS o ON o.oid = a.grantee
WHERE
    c.relnamespace = 'nodeledger'::regnamespace AND a.privilege_type <> 'SELECT'
    AND a.grantee <> c.relowner AND o.rolname <> ALL ($1::text[])
ORDER BY statement;
