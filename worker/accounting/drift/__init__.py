"""Where the ledger and a hypervisor disagree: claimed guests, domains that nobody claimed, and the host itself."""
