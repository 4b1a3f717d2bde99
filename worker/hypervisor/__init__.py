"""libvirt: connections, threads and deadlines; from a host's XML to its inventory; its domains."""

from worker.hypervisor.addresses import DEFAULT_PATTERNS
from worker.hypervisor.pool import Hypervisors

__all__ = ["DEFAULT_PATTERNS", "Hypervisors"]
