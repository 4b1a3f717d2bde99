-- Batches whose outcomes are all published.
DELETE FROM nodeledger.outbox WHERE id = ANY ($1::uuid[])
