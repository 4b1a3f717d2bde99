SELECT nodeledger.mend_parked();
