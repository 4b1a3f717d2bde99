SELECT nodeledger.purge_dead_letters(now() - $1::interval, $2);
