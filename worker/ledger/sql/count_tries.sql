-- Commands that are about to be tried once more.
INSERT INTO nodeledger.attempt AS a (command, tries, at)
SELECT command, 1, now() FROM unnest($1::uuid[]) AS x (command)
ON CONFLICT (command) DO UPDATE SET tries = a.tries + 1, at = excluded.at
