-- Which of these roles exist, and their settings as name=value.
SELECT r.rolname::text AS role, coalesce(s.setconfig, '{}') AS settings
FROM pg_roles AS r
LEFT JOIN pg_db_role_setting AS s ON s.setrole = r.oid AND s.setdatabase = 0
WHERE r.rolname = ANY ($1::text[]);
