-- The new number holds from now on.
UPDATE nodeledger.installation AS i SET shards = $1, resharding_to = NULL, gathered = false;
