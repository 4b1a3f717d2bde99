-- How the server is set where it matters for keeping what was committed, and what time it has.
SELECT
    current_setting('server_version') AS version,
    clock_timestamp() AS clock,
    pg_is_in_recovery() AS read_only,
    current_setting('fsync') AS fsync,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('full_page_writes') AS full_page_writes;
