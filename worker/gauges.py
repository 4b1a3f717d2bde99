"""What the parts of a worker know of themselves, asked when the metrics page is read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.broker.rabbit import RabbitBroker
    from worker.engine.lanes import Lanes
    from worker.engine.services import Engine
    from worker.hypervisor import Hypervisors
    from worker.telemetry.metrics import Metrics


def show(metrics: Metrics, lanes: Lanes, engine: Engine, broker: RabbitBroker, hypervisors: Hypervisors) -> None:
    """Let the metrics follow the parts."""
    loop = asyncio.get_running_loop()
    metrics.lanes.set_function(lambda: lanes.count)
    metrics.waiting.set_function(lambda: lanes.depth)
    metrics.deepest_lane.set_function(lambda: lanes.deepest)
    metrics.oldest_waiting_seconds.set_function(lambda: lanes.oldest(loop.time()))
    metrics.outbox.set_function(lambda: engine.unpublished)
    metrics.outbox_refused.set_function(lambda: engine.refused)
    metrics.database_up.set_function(lambda: not engine.problems)
    metrics.hypervisor_calls_stuck.set_function(lambda: hypervisors.stuck_calls)
    metrics.hypervisors_unreachable.set_function(lambda: hypervisors.unreachable_nodes)
    metrics.shards_held.set_function(lambda: _held(engine, broker))
    metrics.broker_blocked.set_function(lambda: broker.state.blocked is not None)
    counts = broker.consumer.counts
    metrics.follow("broker_connects", "Connections to the broker opened.", lambda: broker.connects)
    metrics.follow("commands_received", "Messages taken from command queues.", lambda: counts.delivered)
    metrics.follow("commands_redelivered", "Messages the broker had delivered before.", lambda: counts.redelivered)
    metrics.follow("stale_acknowledgements", "Times a channel was gone when it was settled.", lambda: counts.stale)


def _held(engine: Engine, broker: RabbitBroker) -> int:
    """How many of the worker's own shards the broker has it in line for, where nobody else stays before it."""
    state = broker.state
    return len(engine.shards - state.waiting_shards) if state.consuming else 0
