INSERT INTO nodeledger.migration (name, checksum) VALUES ($1, $2);
