-- How many shards there are, and whether that is being changed.
SELECT i.shards, i.resharding_to, i.gathered FROM nodeledger.installation AS i;
