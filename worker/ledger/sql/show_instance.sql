SELECT i.instance, i.project, i.user_id, i.state, i.task, i.os_type, i.revision, i.move, i.deleted_at
FROM nodeledger.instance_view AS i
WHERE i.instance = $1;
