SELECT s.property, s.value, s.amount
FROM nodeledger.node_statistics AS s
WHERE s.node = $1
ORDER BY s.property, s.value;
