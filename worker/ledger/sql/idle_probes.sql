-- Nodes with nothing parked, locked against those who would park something just now.
SELECT p.node
FROM nodeledger.probe AS p
WHERE p.next_at <= now()
    AND NOT EXISTS (SELECT FROM nodeledger.parked_command AS c WHERE c.node = p.node)
ORDER BY p.node
FOR UPDATE SKIP LOCKED
