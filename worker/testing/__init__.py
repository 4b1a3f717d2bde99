"""A ledger in memory, for the tests of those who send commands: the real rules behind the client's methods.

>>> from worker.testing import MemoryLedger

It needs pydantic and nothing else: no broker, no database, no hypervisor.
"""

from worker.testing.hypervisor import MemoryHypervisor
from worker.testing.ledger import MemoryLedger
from worker.testing.outcomes import MemoryRead

__all__ = ["MemoryHypervisor", "MemoryLedger", "MemoryRead"]
