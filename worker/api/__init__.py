"""The read API and the dashboard, served by the worker beside its health and metrics."""

from __future__ import annotations

from worker.api.app import add_read_api

__all__ = ["add_read_api"]
