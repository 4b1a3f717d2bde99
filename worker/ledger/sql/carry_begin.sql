-- A node with very many entries takes longer than the worker's patience.
SET LOCAL statement_timeout = '10min';
