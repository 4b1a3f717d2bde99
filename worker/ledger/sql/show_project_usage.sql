SELECT p.project, p.user_id, p.resource, p.used
FROM nodeledger.project_usage AS p
WHERE $1::text IS NULL OR p.project = $1
ORDER BY p.project, p.user_id, p.resource;
