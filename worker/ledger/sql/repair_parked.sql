SELECT nodeledger.repair_parked();
