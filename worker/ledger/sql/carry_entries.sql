SELECT nodeledger.carry_entries(now() - $1::interval, $2, $3);
