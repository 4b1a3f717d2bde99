-- What readers of the database see when they ask it: `\d+` in psql shows these.

COMMENT ON SCHEMA nodeledger IS 'The resource ledger of a fleet of hypervisors. Views are for readers; their columns are only ever added to.';

COMMENT ON VIEW nodeledger.node_usage IS 'What each node has of each resource, and how much of it is used; of CPU, memory and disk in whole, not by cell';
COMMENT ON COLUMN nodeledger.node_usage.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.node_usage.resource IS 'vcpus (shared), pcpus (dedicated), memory_mib, disk_mib, or a custom one, CUSTOM_…';
COMMENT ON COLUMN nodeledger.node_usage.total IS 'What the hypervisor reports; 0 of a resource that is used and no longer reported';
COMMENT ON COLUMN nodeledger.node_usage.reserved IS 'What the policy keeps for the host';
COMMENT ON COLUMN nodeledger.node_usage.capacity IS 'What may be handed out: floor((total - reserved) * ratio)';
COMMENT ON COLUMN nodeledger.node_usage.used IS 'What instances are charged';
COMMENT ON COLUMN nodeledger.node_usage.free IS 'capacity - used; below 0 where capacity shrank under what is used';

COMMENT ON VIEW nodeledger.node_status IS 'Each node, and how it is';
COMMENT ON COLUMN nodeledger.node_status.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.node_status.hypervisor IS 'libvirt URI; null if the node is not observed';
COMMENT ON COLUMN nodeledger.node_status.enabled IS 'Whether new claims are accepted';
COMMENT ON COLUMN nodeledger.node_status.reachable IS 'Whether the hypervisor answered when it was last asked; null if it never was';
COMMENT ON COLUMN nodeledger.node_status.generation IS 'Version of the node, one higher with each change';
COMMENT ON COLUMN nodeledger.node_status.observed_at IS 'When the hypervisor last told its inventory';
COMMENT ON COLUMN nodeledger.node_status.instances IS 'How many instances hold something here';
COMMENT ON COLUMN nodeledger.node_status.failed_builds IS 'Builds that failed in a row';

COMMENT ON VIEW nodeledger.allocation_view IS 'What each instance holds on each node, in each role';
COMMENT ON COLUMN nodeledger.allocation_view.instance IS 'Id of the instance';
COMMENT ON COLUMN nodeledger.allocation_view.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.allocation_view.role IS 'active; move_source or move_destination while a move is open; orphan: a domain that nobody claimed';
COMMENT ON COLUMN nodeledger.allocation_view.project IS 'Project of the instance';
COMMENT ON COLUMN nodeledger.allocation_view.user_id IS 'User of the instance';
COMMENT ON COLUMN nodeledger.allocation_view.vcpus IS 'Shared vCPUs charged; of a move within a node the destination bears only what exceeds the source, here and in what follows';
COMMENT ON COLUMN nodeledger.allocation_view.pcpus IS 'Dedicated CPUs charged';
COMMENT ON COLUMN nodeledger.allocation_view.memory_mib IS 'Memory charged, with overhead, in MiB';
COMMENT ON COLUMN nodeledger.allocation_view.disk_mib IS 'Disk charged, in MiB';
COMMENT ON COLUMN nodeledger.allocation_view.custom IS 'Custom resources charged, by name';
COMMENT ON COLUMN nodeledger.allocation_view.assignment IS 'Cells, CPUs, page sizes and devices for the domain, as the outcome gave them';
COMMENT ON COLUMN nodeledger.allocation_view.claimed_at IS 'When it was first held';
COMMENT ON COLUMN nodeledger.allocation_view.lease_expires_at IS 'When the lease runs out and it is given back; null: never';

COMMENT ON VIEW nodeledger.pinned_cpu_view IS 'Host CPUs that one instance has for itself';
COMMENT ON COLUMN nodeledger.pinned_cpu_view.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.pinned_cpu_view.cpu IS 'Number of the host CPU';
COMMENT ON COLUMN nodeledger.pinned_cpu_view.instance IS 'Id of the instance that holds it';

COMMENT ON VIEW nodeledger.device_view IS 'Devices that a node reports or an instance holds';
COMMENT ON COLUMN nodeledger.device_view.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.device_view.address IS 'PCI address, in lower case with a domain of four digits or more';
COMMENT ON COLUMN nodeledger.device_view.vendor IS 'Vendor id, hexadecimal; null if the device is no longer reported';
COMMENT ON COLUMN nodeledger.device_view.product IS 'Product id, hexadecimal; null if the device is no longer reported';
COMMENT ON COLUMN nodeledger.device_view.type IS 'pci, pf, vf, vdpa or mdev; null if the device is no longer reported';
COMMENT ON COLUMN nodeledger.device_view.cell IS 'NUMA cell; null if it has none';
COMMENT ON COLUMN nodeledger.device_view.parent IS 'Address of the physical function of a virtual one';
COMMENT ON COLUMN nodeledger.device_view.state IS 'available; held by an instance; shared: carries mediated devices; hidden: its physical function or one of its virtual ones is held; gone: held, and no longer reported';
COMMENT ON COLUMN nodeledger.device_view.instance IS 'Id of the instance that holds it; null if none does';

COMMENT ON VIEW nodeledger.entry_view IS 'The append-only ledger: each change of what an instance is charged on a node, a row for each resource';
COMMENT ON COLUMN nodeledger.entry_view.seq IS 'Order of the entries; several rows have one where several resources changed at once';
COMMENT ON COLUMN nodeledger.entry_view.at IS 'When it was committed; 1970 in an entry that was carried forward';
COMMENT ON COLUMN nodeledger.entry_view.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.entry_view.instance IS 'Id of the instance';
COMMENT ON COLUMN nodeledger.entry_view.command IS 'Id of the command that caused it';
COMMENT ON COLUMN nodeledger.entry_view.kind IS 'Kind of that command; expire: a lease ran out; carried: the sum of entries past their retention';
COMMENT ON COLUMN nodeledger.entry_view.resource IS 'As in node_usage';
COMMENT ON COLUMN nodeledger.entry_view.delta IS 'By how much the charge changed';
COMMENT ON COLUMN nodeledger.entry_view.used_after IS 'What the node used of it afterwards';

COMMENT ON VIEW nodeledger.outcome_view IS 'Each command that was answered, and its outcome';
COMMENT ON COLUMN nodeledger.outcome_view.command IS 'Id of the command';
COMMENT ON COLUMN nodeledger.outcome_view.kind IS 'Kind of the command, such as claim';
COMMENT ON COLUMN nodeledger.outcome_view.status IS 'applied or rejected, which is final; parked: waiting for a hypervisor; dead: in the dead letters';
COMMENT ON COLUMN nodeledger.outcome_view.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.outcome_view.instance IS 'Id of the instance; null where the command names none, or several';
COMMENT ON COLUMN nodeledger.outcome_view.received_at IS 'When a worker received the command';
COMMENT ON COLUMN nodeledger.outcome_view.at IS 'When this status was committed';
COMMENT ON COLUMN nodeledger.outcome_view.codes IS 'Codes of the reasons of a rejection';
COMMENT ON COLUMN nodeledger.outcome_view.outcome IS 'The outcome as it was published';

COMMENT ON VIEW nodeledger.dead_letter_view IS 'Messages that could not be applied and wait for somebody';
COMMENT ON COLUMN nodeledger.dead_letter_view.id IS 'Number of the letter, for nodeledger dead show';
COMMENT ON COLUMN nodeledger.dead_letter_view.reason IS 'Why it is here, such as malformed or poison';
COMMENT ON COLUMN nodeledger.dead_letter_view.detail IS 'The particulars: the error, the place in the message';
COMMENT ON COLUMN nodeledger.dead_letter_view.node IS 'Name of the hypervisor host, where the message tells it';
COMMENT ON COLUMN nodeledger.dead_letter_view.kind IS 'Kind of the command, where the message tells it';
COMMENT ON COLUMN nodeledger.dead_letter_view.command IS 'Id of the command, where the message tells it';
COMMENT ON COLUMN nodeledger.dead_letter_view.first_seen IS 'When it first came here';
COMMENT ON COLUMN nodeledger.dead_letter_view.attempts IS 'How often it came here';
COMMENT ON COLUMN nodeledger.dead_letter_view.state IS 'open; replayed: sent again; resolved: its command has its final outcome; discarded';

COMMENT ON VIEW nodeledger.project_usage IS 'What projects are charged over all nodes, by user and resource';
COMMENT ON COLUMN nodeledger.project_usage.project IS 'Project of the instances';
COMMENT ON COLUMN nodeledger.project_usage.user_id IS 'User of the instances';
COMMENT ON COLUMN nodeledger.project_usage.resource IS 'As in node_usage';
COMMENT ON COLUMN nodeledger.project_usage.used IS 'Sum of what they are charged; during a move both sides count';

COMMENT ON VIEW nodeledger.instance_view IS 'Each instance that is known, deleted or not';
COMMENT ON COLUMN nodeledger.instance_view.instance IS 'Id of the instance';
COMMENT ON COLUMN nodeledger.instance_view.project IS 'Its project';
COMMENT ON COLUMN nodeledger.instance_view.user_id IS 'Its user';
COMMENT ON COLUMN nodeledger.instance_view.state IS 'What the producer last said of its state';
COMMENT ON COLUMN nodeledger.instance_view.task IS 'What the producer last said is being done with it';
COMMENT ON COLUMN nodeledger.instance_view.os_type IS 'Its operating system, as the producer said';
COMMENT ON COLUMN nodeledger.instance_view.revision IS 'Number of the producer''s newest change that was applied';
COMMENT ON COLUMN nodeledger.instance_view.move IS 'Name of the open move; null if none is open';
COMMENT ON COLUMN nodeledger.instance_view.deleted_at IS 'When it was deleted; null while it lives';

COMMENT ON VIEW nodeledger.node_detail_view IS 'Everything about a node in documents';
COMMENT ON COLUMN nodeledger.node_detail_view.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.node_detail_view.policy IS 'What the operator set; defaults are left out';
COMMENT ON COLUMN nodeledger.node_detail_view.inventory IS 'What the hypervisor reports; null before it was first observed';
COMMENT ON COLUMN nodeledger.node_detail_view.capacity IS 'total, reserved and capacity of each resource';
COMMENT ON COLUMN nodeledger.node_detail_view.counters IS 'Use of each counter: the resources, and their parts by cell, page size and mediated device type';
COMMENT ON COLUMN nodeledger.node_detail_view.parked IS 'Commands that wait for its hypervisor and hold back those behind them';
COMMENT ON COLUMN nodeledger.node_detail_view.host_uuid IS 'UUID of the machine behind the node, as its hypervisor tells it';
COMMENT ON COLUMN nodeledger.node_detail_view.labels IS 'What its owner says of it, by name';

COMMENT ON VIEW nodeledger.node_statistics IS 'How many instances of a node share a property';
COMMENT ON COLUMN nodeledger.node_statistics.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.node_statistics.property IS 'instances, state, task, project, os_type; io_workload: keeping its disks busy; failed_builds: builds that failed in a row';
COMMENT ON COLUMN nodeledger.node_statistics.value IS 'Value of the property; none where it is not set';
COMMENT ON COLUMN nodeledger.node_statistics.amount IS 'How many';

COMMENT ON VIEW nodeledger.history_view IS 'The append-only ledger, a row for each entry, with all counters';
COMMENT ON COLUMN nodeledger.history_view.seq IS 'Order of the entries';
COMMENT ON COLUMN nodeledger.history_view.at IS 'When it was committed; 1970 in an entry that was carried forward';
COMMENT ON COLUMN nodeledger.history_view.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.history_view.instance IS 'Id of the instance';
COMMENT ON COLUMN nodeledger.history_view.project IS 'Its project then';
COMMENT ON COLUMN nodeledger.history_view.user_id IS 'Its user then';
COMMENT ON COLUMN nodeledger.history_view.command IS 'Id of the command that caused it';
COMMENT ON COLUMN nodeledger.history_view.kind IS 'Kind of that command; expire: a lease ran out; carried: the sum of entries past their retention';
COMMENT ON COLUMN nodeledger.history_view.counters IS 'The counters that changed: resources, and their parts by cell, page size and mediated device type';
COMMENT ON COLUMN nodeledger.history_view.deltas IS 'By how much each changed, in the order of counters';
COMMENT ON COLUMN nodeledger.history_view.used_after IS 'What the node used of each afterwards, in the order of counters';
COMMENT ON COLUMN nodeledger.history_view.pins IS 'Host CPUs that the instance held for itself on the node afterwards';
COMMENT ON COLUMN nodeledger.history_view.devices IS 'Addresses of the devices that the instance held on the node afterwards';

COMMENT ON VIEW nodeledger.parked_view IS 'Commands that wait for a hypervisor, durably and in order';
COMMENT ON COLUMN nodeledger.parked_view.seq IS 'Order in which those of one node go on';
COMMENT ON COLUMN nodeledger.parked_view.node IS 'Name of the hypervisor host that is waited for';
COMMENT ON COLUMN nodeledger.parked_view.command IS 'Id of the command';
COMMENT ON COLUMN nodeledger.parked_view.received_at IS 'When a worker received it';
COMMENT ON COLUMN nodeledger.parked_view.parked_at IS 'Since when it waits';
COMMENT ON COLUMN nodeledger.parked_view.size_bytes IS 'Size of its body';

COMMENT ON TABLE nodeledger.migration IS 'The steps of this schema that were applied, with their checksums';
COMMENT ON TABLE nodeledger.installation IS 'One row: how many shards there are, and whether that is being changed';
COMMENT ON TABLE nodeledger.node IS 'A node''s changing part: locked, read and written by every batch';
COMMENT ON TABLE nodeledger.node_profile IS 'A node''s seldom changing part: address, policy, inventory, capacity';
COMMENT ON TABLE nodeledger.instance IS 'An instance, or with deleted_at its tombstone';
COMMENT ON TABLE nodeledger.allocation IS 'What one instance holds on one node in one role';
COMMENT ON TABLE nodeledger.pinned_cpu IS 'Host CPUs that one instance has for itself; a CPU is there once';
COMMENT ON TABLE nodeledger.held_device IS 'Devices that one instance holds whole; a device is there once';
COMMENT ON TABLE nodeledger.entry IS 'The append-only ledger, by months; its sums are the use of the nodes';
COMMENT ON TABLE nodeledger.entry_rest IS 'Entries of months that have no partition yet';
COMMENT ON TABLE nodeledger.entry_carried IS 'Sums of entries past their retention';
COMMENT ON TABLE nodeledger.command IS 'Inbox and outcome in one: the row that makes an id unique holds its answer';
COMMENT ON TABLE nodeledger.outbox IS 'Batches whose outcomes may not all be published yet';
COMMENT ON TABLE nodeledger.parked_command IS 'Commands that wait for a hypervisor, with their bodies';
COMMENT ON TABLE nodeledger.probe IS 'When a node with parked commands is asked again';
COMMENT ON TABLE nodeledger.attempt IS 'Commands that were begun and not finished, and how often';
COMMENT ON TABLE nodeledger.dead_letter IS 'Messages that could not be applied, byte for byte, each once by digest and reason';
COMMENT ON TABLE nodeledger.dead_letter_action IS 'What was done to a dead letter, and by whom';
COMMENT ON TABLE nodeledger.worker IS 'The pool: workers, and when each was last seen';
COMMENT ON TABLE nodeledger.shard IS 'The worker that should be first at each shard';
