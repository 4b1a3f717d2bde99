"""The worker: from a message to a committed, answered, acknowledged command."""
