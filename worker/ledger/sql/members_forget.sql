DELETE FROM nodeledger.worker AS w WHERE w.seen_at < now() - make_interval(secs => $1);
