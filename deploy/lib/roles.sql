-- The login roles and the database; the schema and what each role may do in it are the migrations' business.
SELECT format('CREATE ROLE %I LOGIN', name)
  FROM unnest(ARRAY['nodeledger_owner', 'nodeledger_worker', 'nodeledger_reader']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec
ALTER ROLE nodeledger_owner PASSWORD :'nodeledger_owner';
ALTER ROLE nodeledger_worker PASSWORD :'nodeledger_worker';
ALTER ROLE nodeledger_reader PASSWORD :'nodeledger_reader';
SELECT format('CREATE DATABASE %I OWNER nodeledger_owner', :'database')
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database')
\gexec
