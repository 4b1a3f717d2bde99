-- What waits for somebody: open dead letters, parked commands, and batches whose outcomes may not all be published.
SELECT
    (SELECT count(*) FROM nodeledger.dead_letter AS d WHERE d.state = 'open') AS dead_letters,
    (SELECT count(*) FROM nodeledger.parked_command) AS parked,
    (SELECT count(*) FROM nodeledger.outbox AS o WHERE o.at < now() - interval '1 minute') AS unpublished;
