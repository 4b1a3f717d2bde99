"""The exceptions of the product: one root, and what several packages raise.

The rest are defined beside the code that raises them:

* NodeledgerError: anything that this product raises of its own
  * MalformedCommandError: a message is no command of this version of the contract
  * ClientError: a command was not answered as its sender wanted it
    * RejectedError: it was rejected, or is in the dead letters
    * NoAnswerError: no final outcome came in time
    * UnreadableAnswerError: the worker is of a later release
    * BrokerAwayError: the broker cannot be reached, or did not confirm in time
    * UnroutableError: the broker does not take it
  * RefusedLineError: a line of input is not sent
  * SettingsError: a setting is missing or wrong
  * RulesError: permission rules cannot be used
  * UsageError: something was asked in a way that has no answer
  * OperationError: what an operator asked for cannot be done now
    * SchemaError: the database cannot be brought to this version's schema
    * ShardsDifferError: a worker and its installation have different numbers of shards
    * TopologyError: the broker's exchanges and queues are not as they must be
  * UnreachableError: a server cannot be reached, or does not let us in
  * InternalError: a fault of the program itself
  * TracingUnavailableError: traces were asked for, and what makes them is not installed
  * ProblemError: a request to the read API cannot be answered as asked
  * LedgerUnavailable: the database is away, or refuses for the time being
  * LedgerConflict: another worker changed what a transaction stands on
  * BrokerUnavailable: the broker is away, or did not confirm in time
    * NotConfirmed: which messages were not confirmed
  * HypervisorUnreachable: a hypervisor did not answer
    * NotAsked: it was left alone for now
    * TooLate: it did not answer before the deadline
  * DeadlinePassed: a call to a hypervisor did not return in time
  * NoThread: too many calls to hypervisors hang
  * CallFailed: libvirt answered with an error
    * ConnectionLost: only a new connection can help
  * InnerCancelledError: what was waited for was cancelled from inside
  * XmlFault: a hypervisor's document cannot be used
  * TooComplexError: a decision would take more steps than one may
  * StatementError: a statement and what is bound to it do not go together
  * BrokenInvariantError: a decision would leave a state that cannot be
    * DoubleUseError: a CPU or a device was about to be given twice

Those named after a state of the world (unavailable, unreachable, conflict)
are waited out by who meets them; the others need somebody who acts on their
text, which is one line that says what to do.
"""

from __future__ import annotations

from schemas.errors import NodeledgerError

__all__ = ["InternalError", "NodeledgerError", "OperationError", "SettingsError", "UnreachableError", "UsageError"]


class SettingsError(NodeledgerError):
    """A setting is missing or wrong. The text names the environment variable and the reason, never the value."""


class UsageError(NodeledgerError):
    """Something was asked in a way that has no answer; the text says how to ask."""


class OperationError(NodeledgerError):
    """What an operator asked for cannot be done now; the text says why, and what to do."""


class UnreachableError(NodeledgerError):
    """A server cannot be reached, or does not let us in; the text says which, and what to look at."""


class InternalError(NodeledgerError):
    """A fault of the program itself."""
