-- The roles of least privilege and their database; the passwords come from the environment, and go into no log.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
SET password_encryption = 'scram-sha-256';
\getenv nodeledger_owner NODELEDGER_OWNER_PASSWORD
\getenv nodeledger_worker NODELEDGER_WORKER_PASSWORD
\getenv nodeledger_reader NODELEDGER_READER_PASSWORD
\ir roles.sql
\ir rights.sql
\connect :"database"
\ir everybody.sql
