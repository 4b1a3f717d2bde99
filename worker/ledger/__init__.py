"""Postgres: the schema, its statements, and what reads, checks and keeps the ledger."""
