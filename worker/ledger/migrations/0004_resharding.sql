-- A change of the number of shards that is under way: the number it leads to,
-- and whether every message of the old queues is gathered in one place.
ALTER TABLE nodeledger.installation
ADD COLUMN resharding_to integer CHECK (resharding_to BETWEEN 1 AND 100),
ADD COLUMN gathered boolean NOT NULL DEFAULT false,
ADD CONSTRAINT gathered_while_resharding CHECK (resharding_to IS NOT NULL OR NOT gathered);
