-- How many commands are parked, and of how many nodes.
SELECT count(*)::int, count(DISTINCT node)::int FROM nodeledger.parked_command
