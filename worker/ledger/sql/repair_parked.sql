SELECT nodeledger.repair_parked($1::text[]);
