SELECT s.number, s.owner FROM nodeledger.shard AS s ORDER BY s.number;
