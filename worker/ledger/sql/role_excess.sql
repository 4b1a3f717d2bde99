-- What roles have beside their grants: attributes that lift every restriction, and memberships in other roles.
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
ORDER BY statement;
