SELECT nodeledger.purge_commands(now() - $1::interval, $2);
