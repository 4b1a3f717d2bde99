-- Have hypervisors of nodes with parked commands asked at once: something happened there.
UPDATE nodeledger.probe SET attempts = 0, next_at = now() WHERE node = ANY ($1::text[])
