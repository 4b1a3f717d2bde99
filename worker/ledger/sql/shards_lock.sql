-- One assignment at a time; who may only read can neither take this lock nor stand in its way.
LOCK TABLE nodeledger.shard IN SHARE ROW EXCLUSIVE MODE;
