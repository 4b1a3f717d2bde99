SELECT nodeledger.purge_tombstones(now() - $1::interval, $2);
