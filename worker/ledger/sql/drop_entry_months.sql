SELECT nodeledger.drop_entry_months(now() - $1::interval);
