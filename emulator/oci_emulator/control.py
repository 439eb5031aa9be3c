"""The control interface under /emulator/: what exists, what was asked, what shall go wrong."""

import json
from collections.abc import Callable
from typing import Any

from . import scenarios
from .answer import Answer
from .api import Api


def answer(api: Api, method: str, path: str, body: bytes) -> Answer:
    """Answer one request of a test; it needs no signature and is not one of the cloud's."""
    with api.cloud.lock:
        api.cloud.advance()
        getters: dict[str, Callable[[], Any]] = {
            "/emulator/ledger": api.cloud.ledger,
            "/emulator/requests": lambda: api.log,
            "/emulator/scenarios": lambda: {name: found.about for name, found in scenarios.known().items()},
            "/emulator/scenarios/hits": lambda: scenarios.hits(api.settings),
        }
        setters: dict[str, Callable[[Any], None]] = {
            "/emulator/faults": api.settings.set_faults,
            "/emulator/policy": api.settings.set_policy,
            "/emulator/settings": api.settings.set_values,
            "/emulator/scenarios": lambda names: scenarios.play(api.settings, names),
        }
        if method == "GET" and path in getters:
            return _json(getters[path]())
        if method != "POST" or path not in setters:
            return Answer(404, {}, b'{"message": "no such control"}')
        try:
            setters[path](json.loads(body))
        except (ValueError, TypeError, AttributeError) as error:
            return Answer(400, {}, json.dumps({"message": str(error)}).encode())
        return Answer(204)


def _json(value: Any) -> Answer:
    return Answer(200, {}, json.dumps(value).encode())
