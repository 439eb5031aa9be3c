"""What goes back to a client."""

import json
from dataclasses import dataclass, field

from .errors import ApiError


@dataclass
class Answer:
    """Status, extra headers, and a body of bytes (JSON unless the headers say otherwise; empty for none)."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    code: str = ""


def error_answer(error: ApiError) -> Answer:
    """An error as the API writes it."""
    body = json.dumps({"code": error.code, "message": error.message}).encode()
    return Answer(error.status, dict(error.headers), body, error.code)
