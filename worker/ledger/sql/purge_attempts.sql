-- Attempts at commands that never came again.
DELETE FROM nodeledger.attempt AS a WHERE a.at < now() - $1::interval;
