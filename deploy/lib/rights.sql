-- What the roles may do beside the schema's grants; `nodeledger db check` compares it with what a server has.
ALTER ROLE nodeledger_owner NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE nodeledger_worker NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE nodeledger_reader NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
ALTER ROLE nodeledger_reader SET default_transaction_read_only = on;
-- what one role may take of the server that workers need too: connections, and disk for sorting
ALTER ROLE nodeledger_reader CONNECTION LIMIT 20;
ALTER ROLE nodeledger_reader SET temp_file_limit = '1GB';
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO nodeledger_worker, nodeledger_reader;
