-- How many shards the installation has; nothing before the first worker has started.
SELECT i.shards FROM nodeledger.installation AS i;
