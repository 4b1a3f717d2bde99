-- Takes a change back that has moved nothing.
UPDATE nodeledger.installation AS i SET resharding_to = NULL WHERE NOT i.gathered;
