SELECT d.address, d.vendor, d.product, d.type, d.cell, d.parent, d.state, d.instance
FROM nodeledger.device_view AS d
WHERE d.node = $1
ORDER BY d.address;
