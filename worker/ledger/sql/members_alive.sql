-- Who was seen within so many seconds, by the database's clock.
SELECT w.id, w.name, w.started_at, w.seen_at
FROM nodeledger.worker AS w
WHERE w.seen_at > now() - make_interval(secs => $1)
ORDER BY w.id;
