-- A node that answered: what is still parked is looked at again soon.
UPDATE nodeledger.probe SET attempts = 0, next_at = now() + make_interval(secs => $2::float8) WHERE node = $1
