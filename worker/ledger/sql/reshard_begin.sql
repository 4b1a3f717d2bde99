-- Begins a change of the number of shards, or goes on with it. Once everything
-- is gathered there is no other number to go to.
UPDATE nodeledger.installation AS i SET resharding_to = $1
WHERE NOT i.gathered OR i.resharding_to = $1
RETURNING i.shards, i.gathered;
