-- How many commands that hold up others are parked for nodes.
SELECT c.node, count(*) AS waiting
FROM nodeledger.parked_command AS c
WHERE c.node = ANY ($1::text[]) AND c.blocking
GROUP BY c.node
