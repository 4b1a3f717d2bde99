INSERT INTO nodeledger.worker AS w (id, name) VALUES ($1, $2)
ON CONFLICT (id) DO UPDATE SET seen_at = now(), name = excluded.name;
