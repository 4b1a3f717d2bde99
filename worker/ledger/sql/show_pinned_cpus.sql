SELECT c.cpu, c.instance FROM nodeledger.pinned_cpu_view AS c WHERE c.node = $1 ORDER BY c.cpu;
