DELETE FROM nodeledger.worker AS w WHERE w.id = $1;
