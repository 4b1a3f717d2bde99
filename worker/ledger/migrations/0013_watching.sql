-- What audits found to differ between the ledger and a node's hypervisor: what differs now, since when, and what
-- went away. It goes with its node. Nothing of it is on the path of a command, so it may carry a foreign key.
CREATE TABLE nodeledger.drift (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node_id bigint NOT NULL REFERENCES nodeledger.node ON DELETE CASCADE,
    instance uuid,
    kind text NOT NULL,
    detail text NOT NULL,
    ledger jsonb,
    hypervisor jsonb,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    resolved_at timestamptz
);
CREATE INDEX drift_of_node ON nodeledger.drift (node_id, resolved_at);
CREATE INDEX drift_now ON nodeledger.drift (kind) WHERE resolved_at IS NULL;
CREATE INDEX drift_resolved ON nodeledger.drift (resolved_at) WHERE resolved_at IS NOT NULL;
COMMENT ON TABLE nodeledger.drift IS 'Where ledger and hypervisor differ, or differed';

CREATE VIEW nodeledger.drift_view AS
SELECT
    n.name AS node,
    d.instance,
    d.kind,
    d.detail,
    d.ledger,
    d.hypervisor,
    d.first_seen,
    d.last_seen,
    d.resolved_at,
    d.id
FROM nodeledger.drift AS d
JOIN nodeledger.node AS n ON n.id = d.node_id;

COMMENT ON VIEW nodeledger.drift_view IS 'Where ledger and hypervisor differ, or differed, as audits found it';
COMMENT ON COLUMN nodeledger.drift_view.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.drift_view.instance IS 'Id of the instance, or of the domain that nobody claimed; null if it is about the host';
COMMENT ON COLUMN nodeledger.drift_view.kind IS 'What differs: orphan, ghost, amount, pins, devices, …';
COMMENT ON COLUMN nodeledger.drift_view.detail IS 'What differs, in a sentence, as it was last seen';
COMMENT ON COLUMN nodeledger.drift_view.ledger IS 'What the ledger says; null where it says nothing';
COMMENT ON COLUMN nodeledger.drift_view.hypervisor IS 'What the hypervisor says; null where it says nothing';
COMMENT ON COLUMN nodeledger.drift_view.first_seen IS 'When an audit found it first';
COMMENT ON COLUMN nodeledger.drift_view.last_seen IS 'When an audit found it last';
COMMENT ON COLUMN nodeledger.drift_view.resolved_at IS 'When an audit found it gone; null while it is there';
COMMENT ON COLUMN nodeledger.drift_view.id IS 'Order in which they were found';

-- How busy each host was when it was looked at last.
CREATE TABLE nodeledger.host_load (
    node_id bigint PRIMARY KEY REFERENCES nodeledger.node ON DELETE CASCADE,
    at timestamptz NOT NULL,
    user_percent bigint,
    kernel_percent bigint,
    iowait_percent bigint,
    idle_percent bigint,
    memory_used_mib bigint
);
COMMENT ON TABLE nodeledger.host_load IS 'How busy each host was when it was looked at last';

CREATE VIEW nodeledger.node_load AS
SELECT
    n.name AS node,
    l.at,
    l.user_percent,
    l.kernel_percent,
    l.iowait_percent,
    l.idle_percent,
    l.memory_used_mib
FROM nodeledger.host_load AS l
JOIN nodeledger.node AS n ON n.id = l.node_id;

COMMENT ON VIEW nodeledger.node_load IS 'How busy each host was when it was looked at last';
COMMENT ON COLUMN nodeledger.node_load.node IS 'Name of the hypervisor host';
COMMENT ON COLUMN nodeledger.node_load.at IS 'When it was looked at';
COMMENT ON COLUMN nodeledger.node_load.user_percent IS 'Share of CPU time of all CPUs since the look before: guests and programs; null where the hypervisor does not tell';
COMMENT ON COLUMN nodeledger.node_load.kernel_percent IS 'Share of CPU time: the kernel';
COMMENT ON COLUMN nodeledger.node_load.iowait_percent IS 'Share of CPU time: idle and waiting for disks';
COMMENT ON COLUMN nodeledger.node_load.idle_percent IS 'Share of CPU time: idle';
COMMENT ON COLUMN nodeledger.node_load.memory_used_mib IS 'Memory in use, without buffers and caches, in MiB';
