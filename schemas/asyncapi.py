"""The AsyncAPI document: which messages go through which exchanges and queues."""

from __future__ import annotations

from typing import Any, Final, get_args

from schemas.commands import MAX_BODY_BYTES, MAX_OBJECTS, VERSION
from schemas.examples import COMMANDS, OUTCOME
from schemas.outcomes import Status
from schemas.routing import (
    COMMAND_EXCHANGE,
    DEAD_EXCHANGE,
    DEAD_QUEUE,
    DEFAULT_SHARDS,
    DETAIL_HEADER,
    OUTCOME_EXCHANGE,
    REASON_HEADER,
    command_key,
    command_queue,
    shard_of,
)

Json = dict[str, Any]

_BINDING: Final = {"bindingVersion": "0.3.0"}


def asyncapi(schemas: Json, commands: dict[str, str], dead_reasons: list[str]) -> Json:
    """Build the document.

    ``schemas`` are the shared schemas by name, whose references begin with
    ``#/components/schemas/``. ``commands`` gives the schema's name of each kind.
    """
    return {
        "asyncapi": "3.0.0",
        "id": "urn:nodeledger",
        "info": {
            "title": "Nodeledger",
            "version": str(VERSION),
            "description": (
                "Commands change what is held on the nodes of a fleet of hypervisors; each gets an outcome. A command "
                f"is one persistent message of at most {MAX_BODY_BYTES} bytes and {MAX_OBJECTS} JSON objects."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": _channels(list(commands)),
        "operations": _operations(list(commands)),
        "components": {
            "messages": {**_command_messages(schemas, commands), **_other_messages(dead_reasons)},
            "schemas": schemas,
        },
    }


def _channels(kinds: list[str]) -> Json:
    node = COMMANDS["claim"]["node"]
    return {
        "commands": {
            "address": "{shard}",
            "description": (
                f"Quorum queues `{command_queue(0)}` and on, one a shard, each with a single active consumer and bound "
                "by its shard. A node's commands take effect in the order of its queue. What expires in one "
                f"goes to `{DEAD_EXCHANGE}`; use `expires_at`, which is answered."
            ),
            "parameters": {
                "shard": {
                    "description": (
                        "CRC-32 of the node's name in UTF-8, modulo the number of shards "
                        f"({DEFAULT_SHARDS} unless configured), as two digits."
                    ),
                    "examples": [command_key(shard_of(node))],
                }
            },
            "messages": {kind: _ref("messages", kind) for kind in kinds},
            "bindings": _exchange(COMMAND_EXCHANGE, "direct"),
        },
        "outcomes": {
            "address": "{kind}.{status}.{node}",
            "description": "Outcomes, for whoever binds a queue. One that nobody takes stays readable in the database.",
            "parameters": {
                "kind": {"description": f"The command's kind; {_dotted(kinds)} are two words of the key."},
                "status": {"enum": list(get_args(Status))},
                "node": {"description": "The node's name, its dots as dashes."},
            },
            "messages": {"outcome": _ref("messages", "outcome")},
            "bindings": _exchange(OUTCOME_EXCHANGE, "topic"),
        },
        "replies": {
            "address": None,
            "description": "The queue that a command's `reply_to` names, reached through the default exchange.",
            "messages": {"outcome": _ref("messages", "outcome")},
        },
        "dead": {
            "address": DEAD_QUEUE,
            "description": f"Messages that cannot be applied, unchanged, in a quorum queue behind `{DEAD_EXCHANGE}`.",
            "messages": {"dead": _ref("messages", "dead")},
            "bindings": {"amqp": {"is": "queue", "queue": _durable(DEAD_QUEUE), **_BINDING}},
        },
    }


def _dotted(kinds: list[str]) -> str:
    return " and ".join(f"`{kind}`" for kind in kinds if "." in kind)


def _operations(kinds: list[str]) -> Json:
    return {
        "apply": {
            "action": "receive",
            "channel": _ref("channels", "commands", root=""),
            "summary": "Apply a command once, whatever is delivered twice, and answer it.",
            "messages": [{"$ref": f"#/channels/commands/messages/{kind}"} for kind in kinds],
            "bindings": {"amqp": {"ack": True, **_BINDING}},
            "reply": {
                "address": {
                    "location": "$message.header#/reply_to",
                    "description": "Optional, as is `correlation_id`.",
                },
                "channel": _ref("channels", "replies", root=""),
                "messages": [{"$ref": "#/channels/replies/messages/outcome"}],
            },
        },
        "answer": {
            "action": "send",
            "channel": _ref("channels", "outcomes", root=""),
            "summary": "Tell what became of a command.",
            "messages": [{"$ref": "#/channels/outcomes/messages/outcome"}],
            "bindings": {"amqp": {"deliveryMode": 2, **_BINDING}},
        },
        "dead_letter": {
            "action": "send",
            "channel": _ref("channels", "dead", root=""),
            "summary": "Dead-letter a message that cannot be applied, with the reason.",
            "messages": [{"$ref": "#/channels/dead/messages/dead"}],
            "bindings": {"amqp": {"deliveryMode": 2, **_BINDING}},
        },
    }


def _command_messages(schemas: Json, commands: dict[str, str]) -> Json:
    return {
        kind: {
            "name": kind,
            "title": kind,
            "summary": schemas[name]["description"],
            "headers": {
                "type": "object",
                "properties": {"traceparent": {"type": "string", "description": "W3C trace context; continued."}},
            },
            "payload": _ref("schemas", name),
            "bindings": {"amqp": {"contentEncoding": "utf-8", "messageType": kind, **_BINDING}},
            "examples": [{"payload": COMMANDS[kind]}],
        }
        for kind, name in commands.items()
    }


def _other_messages(dead_reasons: list[str]) -> Json:
    return {
        "outcome": {
            "name": "outcome",
            "title": "outcome",
            "summary": "What became of a command. Its `correlation_id` is the command's.",
            "payload": _ref("schemas", "Outcome"),
            "examples": [{"payload": OUTCOME}],
        },
        "dead": {
            "name": "dead",
            "title": "dead letter",
            "summary": "The raw bytes of a message that cannot be applied.",
            "contentType": "application/octet-stream",
            "headers": {
                "type": "object",
                "required": [REASON_HEADER],
                "properties": {
                    REASON_HEADER: {"enum": dead_reasons},
                    DETAIL_HEADER: {"type": "string", "description": "The field and the fault, for people."},
                },
            },
        },
    }


def _ref(section: str, name: str, root: str = "components/") -> Json:
    return {"$ref": f"#/{root}{section}/{name}"}


def _exchange(name: str, kind: str) -> Json:
    exchange = {"name": name, "type": kind, "durable": True, "autoDelete": False}
    return {"amqp": {"is": "routingKey", "exchange": exchange, **_BINDING}}


def _durable(queue: str) -> Json:
    return {"name": queue, "durable": True, "exclusive": False, "autoDelete": False}
