-- Where the schema's own history is kept.
CREATE SCHEMA IF NOT EXISTS nodeledger;
CREATE TABLE IF NOT EXISTS nodeledger.migration (
    name text COLLATE "C" PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
