"""One request from signature to answer: routes, policies, faults, retry tokens, paging."""

import base64
import binascii
import hashlib
import json
import re
import secrets
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from . import prices, rules
from .answer import Answer, error_answer
from .cloud import Cloud, Resource
from .errors import ApiError, incorrect_state, invalid, not_authenticated, not_found, parse_error
from .guest import Guests
from .schema import Operation
from .schema import operation as read_operation
from .settings import Fault, Settings
from .signature import KeyRing, verify
from .supply import Supply

_HOST = re.compile(r"(identity|iaas|limits)\.([a-z0-9-]+)\.(?:oci\.)?oraclecloud\.com")
_SESSION = re.compile(r'keyId="ST\$([^"]+)"')
_TOKEN_LIFE = 24 * 3600  # seconds that a retry token is remembered


@dataclass
class Call:
    """One checked request on its way through its handler."""

    cloud: Cloud
    guests: Guests
    settings: Settings
    region: str
    operation: Operation
    path: dict[str, str]
    query: dict[str, Any]
    body: dict[str, Any]
    if_match: str
    answer_headers: dict[str, str] = field(default_factory=dict)

    @property
    def supply(self) -> Supply:
        """What there is to have."""
        return self.settings.supply

    def compartment(self, identity: str) -> str:
        """The OCID of a compartment that exists; raises 404 otherwise."""
        if identity != self.cloud.tenancy and self.cloud.find("compartment", None, identity) is None:
            raise not_found()
        return identity

    def get(self, kind: str, identity: str) -> Resource:
        """A resource of this region; raises 404 where there is none."""
        resource = self.cloud.find(kind, self.region, identity)
        if resource is None:
            raise not_found()
        return resource

    def usable(self, kind: str, identity: str) -> Resource:
        """A resource that is AVAILABLE; raises 409 while it is on its way."""
        resource = self.get(kind, identity)
        if resource.state != "AVAILABLE":
            raise incorrect_state(f"The {kind} {identity} is in state {resource.state}, not AVAILABLE.")
        return resource

    def target(self, kind: str) -> Resource:
        """The resource that the path names, with if-match honoured."""
        resource = self.get(kind, next(iter(self.path.values())))
        if self.if_match and self.if_match != resource.etag:
            raise ApiError(412, "NoEtagMatch", "The If-Match header does not match the current etag of the resource.")
        return resource

    def change(self, resource: Resource, changes: dict[str, Any]) -> Resource:
        """Overwrite what the changes name."""
        resource.body.update({name: value for name, value in changes.items() if value is not None})
        self.cloud.touch(resource)
        return resource

    def listing(self, kind: str) -> list[Resource]:
        """The resources of a kind that the query asks for, in its order."""
        if "compartmentId" in self.query:
            self.compartment(self.query["compartmentId"])
        beside = ("limit", "page", "sortBy", "sortOrder")
        equal = {name: value for name, value in self.query.items() if name not in beside}
        return self.sorted(list(self.cloud.all(kind, self.region, **equal)))

    def sorted(self, found: list[Resource]) -> list[Resource]:
        """In the order asked for: by name ascending or by time descending, unless the query turns it round."""
        by_name = self.query.get("sortBy") in ("DISPLAYNAME", "NAME")
        key = (lambda item: item.body.get("displayName", "")) if by_name else (lambda item: item.body["timeCreated"])
        down = self.query.get("sortOrder", "ASC" if by_name else "DESC") == "DESC"
        return sorted(found, key=key, reverse=down)


Handler = Callable[[Call], Any]


@dataclass(frozen=True)
class Route:
    """An operation, what it needs to be allowed, and the function that does it."""

    operation: Operation
    needs: tuple[str, ...]
    handler: Handler


ROUTES: list[Route] = []


def does(sdk_name: str, *needs: str) -> Callable[[Handler], Handler]:
    """Register a function as one operation, named as in the SDK; `needs` are the policy statements it asks for."""

    def register(handler: Handler) -> Handler:
        ROUTES.append(Route(read_operation(sdk_name), needs, handler))
        return handler

    return register


@dataclass
class _Token:
    digest: bytes
    resource: str
    at: float


class Api:
    """Answers requests to the cloud's hosts."""

    def __init__(self, cloud: Cloud, ring: KeyRing, settings: Settings, guests: Guests):
        self.cloud, self.ring, self.settings, self.guests = cloud, ring, settings, guests
        self.log: list[dict[str, Any]] = []
        self._tokens: dict[tuple[str, str, str], _Token] = {}

    def answer(self, host: str, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer | None:
        """Answer one request; None means that the connection is to be closed without a word.

        `target` is the raw path and query, `headers` has lower-case names.
        """
        match = _HOST.fullmatch(host)
        service, region = (match[1], match[2]) if match else ("prices", "")
        entry: dict[str, Any] = {
            "at": time.time(), "region": region, "service": service, "method": method, "path": target, "status": None,
            "code": "", "retry_token": headers.get("opc-retry-token"), "operation": None, "delay": 0.0,
        }  # fmt: skip
        self.log.append(entry)
        try:
            answer = self._answer(service, region, host, method, target, headers, body, entry)
        except ApiError as error:
            answer = error_answer(error)
        except Exception:  # a bug of ours: the client must not hang on it, and it must be seen
            traceback.print_exc()
            answer = error_answer(ApiError(500, "InternalError", "The emulator failed; see its stderr."))
        entry["status"], entry["code"] = (answer.status, answer.code) if answer else (None, "(dropped)")
        time.sleep(entry["delay"])
        if answer is None:
            return None
        client_id = headers.get("opc-request-id", secrets.token_hex(16).upper())
        answer.headers["opc-request-id"] = "/".join([client_id] + [secrets.token_hex(16).upper() for _ in range(2)])
        return answer

    def _answer(
        self, service: str, region: str, host: str, method: str, target: str, headers: dict[str, str], body: bytes,
        entry: dict[str, Any],
    ) -> Answer | None:  # fmt: skip
        if headers.get("host", "").removesuffix(":443") != host:
            raise not_authenticated()
        if service == "prices":
            return self._price_list(host, method, target, entry)
        self._authenticate(method, target, headers, body)
        if region not in self.cloud.regions:  # a region that the tenancy has not subscribed to knows no user
            raise not_authenticated()
        url = urlsplit(target)
        for route in ROUTES:
            path = route.operation.path.fullmatch(url.path)
            if path and (route.operation.host, route.operation.method) == (service, method):
                break
        else:
            raise ApiError(404, "NotFound", "The requested URL was not found.")
        entry["operation"] = route.operation.name
        with self.cloud.lock:
            self.cloud.advance()
            names = {name: unquote(value) for name, value in path.groupdict().items()}
            return self._perform(route, region, names, url.query, headers, body, entry)

    def _price_list(self, host: str, method: str, target: str, entry: dict[str, Any]) -> Answer | None:
        """The price list is public: no signature, no region."""
        entry["operation"] = name = prices.document(host, method, target)
        if not name:
            raise ApiError(404, "NotFound", "The requested URL was not found.")
        with self.cloud.lock:
            fault = self.settings.fault(name, {})
        entry["delay"] = fault.delay
        return prices.answer(name, target) if fault.effect == "none" else _gone_wrong(fault)

    def _authenticate(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        with self.cloud.lock:
            if self.settings.values.clock:
                self.settings.met("clock")
            verify(self.ring, method, target, headers, body, ahead=self.settings.values.clock)
            session = _SESSION.search(headers["authorization"])
            if session and self.settings.session_ended(session[1]):
                raise not_authenticated()

    def _perform(
        self, route: Route, region: str, path: dict[str, str], query: str, headers: dict[str, str], body: bytes,
        entry: dict[str, Any],
    ) -> Answer | None:  # fmt: skip
        operation = route.operation
        parsed = _parse(body, headers)
        values = parse_qs(query, keep_blank_values=True)
        fault = self.settings.fault(operation.name, {**(parsed or {}), **{k: v[0] for k, v in values.items()}})
        entry["delay"] = fault.delay
        if fault.effect == "before":
            return _gone_wrong(fault)
        self.settings.authorize(route.needs)
        checked = operation.check_query(values)
        operation.check_body(parsed)
        rules.check(parsed)
        call = Call(
            self.cloud, self.guests, self.settings, region, operation, path, checked, parsed or {},
            headers.get("if-match", ""),
        )  # fmt: skip
        answer = self._handle(call, route.handler, headers.get("opc-retry-token", ""), body)
        return _gone_wrong(fault) if fault.effect == "after" else answer

    def _handle(self, call: Call, handler: Handler, token: str, body: bytes) -> Answer:
        if "opc-retry-token" not in call.operation.headers or not token:
            return self._render(call, handler(call))
        if len(token) > 64:
            raise invalid("opc-retry-token must not be longer than 64 characters")
        key = (call.region, call.operation.name, token)
        digest = hashlib.sha256(body).digest()
        known = self._tokens.get(key)
        if known is None or time.time() - known.at > _TOKEN_LIFE:
            result = handler(call)
            if isinstance(result, Resource):
                self._tokens[key] = _Token(digest, result.id, time.time())
            return self._render(call, result)
        resource = self.cloud.resources[known.resource]
        if known.digest != digest or resource.ended or resource.state == "TERMINATING":
            raise ApiError(
                409,
                "InvalidatedRetryToken",
                "The provided retry token was used in an earlier request that resulted in a system update, "
                "but a subsequent operation invalidated the token.",
            )
        if "work_request" in resource.inner:
            call.answer_headers["opc-work-request-id"] = resource.inner["work_request"]
        return self._render(call, resource)

    def _render(self, call: Call, result: Any) -> Answer:
        headers = call.answer_headers
        if result is None:
            return Answer(204, headers)
        if isinstance(result, Resource):
            headers["etag"] = result.etag
            result = result.body
        if isinstance(result, list):
            listed = [item for item in result if not isinstance(item, Resource) or self.settings.is_listed(item)]
            result = self._page(call, [item.body if isinstance(item, Resource) else item for item in listed])
        call.operation.check_answer(result)
        return Answer(200, headers, json.dumps(result).encode())

    def _page(self, call: Call, rows: list[Any]) -> list[Any]:
        if "page" not in call.operation.query:
            return rows
        size = min(call.query.get("limit", 1000), self.settings.values.page_size)
        token = call.query.get("page")
        if token is None:
            if self.settings.values.empty_first_page:
                call.answer_headers["opc-next-page"] = _page_token(call.operation.name, 0)
                return []
            start = 0
        else:
            start = _page_start(call.operation.name, token)
        if start + size < len(rows):
            call.answer_headers["opc-next-page"] = _page_token(call.operation.name, start + size)
        return rows[start : start + size]


def _gone_wrong(fault: Fault) -> Answer | None:
    return None if fault.drop else error_answer(fault.error())


def _page_token(name: str, start: int) -> str:
    return base64.urlsafe_b64encode(f"{name}:{start}".encode()).decode()


def _page_start(name: str, token: str) -> int:
    try:
        owner, _, start = base64.urlsafe_b64decode(token).decode().partition(":")
        if owner == name:
            return int(start)
    except (ValueError, binascii.Error):
        pass
    raise invalid("Invalid page token")


def _parse(body: bytes, headers: dict[str, str]) -> dict[str, Any] | None:
    if not body:
        return None
    if headers.get("content-type", "").partition(";")[0] != "application/json":
        raise ApiError(415, "UnsupportedMediaType", "The content type must be application/json.")
    try:
        parsed = json.loads(body)
    except ValueError as error:
        raise parse_error("The body is no JSON.") from error
    if not isinstance(parsed, dict):
        raise parse_error("The body must be an object.")
    return parsed
