SELECT nodeledger.prepare_entry_months($1);
