"""The control interface under /emulator/: what exists, what was asked, what shall go wrong."""

import json
from typing import Any

from .answer import Answer
from .api import Api


def answer(api: Api, method: str, path: str, body: bytes) -> Answer:
    """Answer one request of a test; it needs no signature and is not one of the cloud's."""
    with api.cloud.lock:
        api.cloud.advance()
        if method == "GET" and path == "/emulator/ledger":
            return _json(api.cloud.ledger())
        if method == "GET" and path == "/emulator/requests":
            return _json(api.log)
        setters = {
            "/emulator/faults": api.settings.set_faults,
            "/emulator/policy": api.settings.set_policy,
            "/emulator/settings": api.settings.set_values,
        }
        if method != "POST" or path not in setters:
            return Answer(404, {}, b'{"message": "no such control"}')
        try:
            setters[path](json.loads(body))
        except (ValueError, TypeError, AttributeError) as error:
            return Answer(400, {}, json.dumps({"message": str(error)}).encode())
        return Answer(204)


def _json(value: Any) -> Answer:
    return Answer(200, {}, json.dumps(value).encode())
