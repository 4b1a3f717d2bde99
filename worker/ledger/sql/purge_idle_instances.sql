SELECT nodeledger.purge_idle_instances(now() - $1::interval, $2);
