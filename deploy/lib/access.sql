-- The roles of least privilege and their database; the passwords come from the environment, and go into no log.
SET log_statement = 'none';
SET log_min_duration_statement = -1;
SET log_min_error_statement = 'panic';
SET password_encryption = 'scram-sha-256';
\getenv nodeledger_owner NODELEDGER_OWNER_PASSWORD
\getenv nodeledger_worker NODELEDGER_WORKER_PASSWORD
\getenv nodeledger_reader NODELEDGER_READER_PASSWORD
\ir roles.sql
ALTER ROLE nodeledger_owner NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE nodeledger_worker NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE nodeledger_reader NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE nodeledger_reader SET default_transaction_read_only = on;
-- what one role may take of the server that workers need too: connections, and disk for sorting
ALTER ROLE nodeledger_reader CONNECTION LIMIT 20;
ALTER ROLE nodeledger_reader SET temp_file_limit = '1GB';
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO nodeledger_worker, nodeledger_reader;
\connect :"database"
REVOKE ALL ON SCHEMA public FROM PUBLIC;
\ir functions.sql
