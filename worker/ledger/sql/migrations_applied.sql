SELECT m.name, m.checksum FROM nodeledger.migration AS m ORDER BY m.name;
