"""The client for producers and readers; needs aio-pika (the extra ``client``) and nothing else of this project.

>>> from schemas.client import Client
"""

from __future__ import annotations

from schemas.asking import Asking, Options, command_of, uuid7
from schemas.client.client import Client
from schemas.client.messages import Answer, Message, Pending
from schemas.client.outcomes import Outcomes, Read
from schemas.client.sync import SyncClient
from schemas.errors import (
    BrokerAwayError,
    ClientError,
    NoAnswerError,
    RejectedError,
    UnreadableAnswerError,
    UnroutableError,
)

__all__ = [
    "Answer",
    "Asking",
    "BrokerAwayError",
    "Client",
    "ClientError",
    "Message",
    "NoAnswerError",
    "Options",
    "Outcomes",
    "Pending",
    "Read",
    "RejectedError",
    "SyncClient",
    "UnreadableAnswerError",
    "UnroutableError",
    "command_of",
    "uuid7",
]
