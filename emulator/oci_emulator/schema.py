"""What Oracle's SDK knows about each operation: path, parameters, and the models of body and answer.

The SDK is read as a description only: method and path, names and allowed values of the parameters stand in the
source of its client methods; the models list their attributes, and their setters judge enumerations. Source:
oci 2.189, `oci/core/*_client.py` and `oci/core/models/`.
"""

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .errors import ApiError, invalid, missing, parse_error

_HOST_OF = {"core": "iaas", "work_requests": "iaas", "identity": "identity", "limits": "limits"}
_BASE_OF = {"limits": ""}  # the paths of this service's client are whole
_ANSWER = "answer"
_SIMPLE: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "float": (int, float), "bool": bool}


@dataclass(frozen=True)
class Parameter:
    """A query parameter: its SDK type (`str`, `int`, `bool`, ...), and what is said about it."""

    type: str
    required: bool
    allowed: tuple[str, ...]


@dataclass(frozen=True)
class Operation:
    """One operation of the API, with everything the SDK says about its request and its answer."""

    name: str
    service: str
    host: str
    method: str
    path: re.Pattern[str]
    query: Mapping[str, Parameter]
    headers: frozenset[str]
    body: str
    body_required: bool
    answer: str

    def check_query(self, query: Mapping[str, list[str]]) -> dict[str, Any]:
        """Check the parsed query string and give its values their types; raise ApiError where one does not fit."""
        values: dict[str, Any] = {}
        for name, given in query.items():
            parameter = self.query.get(name)
            if parameter is None:
                raise invalid(f"Unknown query parameter '{name}' for {self.name}")
            if len(given) > 1:
                raise invalid(f"Query parameter '{name}' is given more than once")
            values[name] = _typed(name, parameter, given[0])
        for name, parameter in self.query.items():
            if parameter.required and not values.get(name):
                raise missing(name)
        return values

    def check_body(self, body: Any) -> None:
        """Check a parsed JSON body against the SDK's model; raise ApiError where it does not fit."""
        if not self.body:
            if body not in (None, {}):
                raise parse_error(f"{self.name} takes no body")
        elif body is not None:
            check(self.service, self.body, body, "body")
        elif self.body_required:
            raise parse_error(f"{self.name} needs a body")

    def check_answer(self, answer: Any) -> None:
        """Check our own answer the same way, so that the SDK can read it; a misfit is our fault."""
        try:
            if self.answer:
                check(self.service, self.answer, answer, _ANSWER)
        except ApiError as error:
            raise ApiError(
                500, "InternalError", f"The emulator's own {self.name} does not fit: {error.message}"
            ) from error


def _typed(name: str, parameter: Parameter, text: str) -> Any:
    if not text:
        raise invalid(f"Query parameter '{name}' is empty")
    if parameter.allowed and text not in parameter.allowed:
        raise invalid(f"Query parameter '{name}' must be one of {', '.join(parameter.allowed)}")
    if parameter.type == "int":
        if not text.isdigit() or not 1 <= int(text) <= 1000:
            raise invalid(f"Query parameter '{name}' must be a number from 1 to 1000")
        return int(text)
    if parameter.type == "bool":
        if text not in ("true", "false"):
            raise invalid(f"Query parameter '{name}' must be true or false")
        return text == "true"
    return text


def operation(sdk_name: str) -> Operation:
    """Read the operation which the SDK calls `service.Client.method`, for example `core.ComputeClient.get_image`."""
    service, client, method = sdk_name.split(".")
    source = inspect.getsource(getattr(importlib.import_module(f"oci.{service}"), client).__dict__[method])
    template = _found(r'resource_path = "(.*?)"', source)
    body = re.search(r":param oci\.\w+\.models\.(\w+) \w+: \((\w+)\)", source)
    return Operation(
        name="".join(word.capitalize() for word in method.split("_")),
        service=service,
        host=_HOST_OF[service],
        method=_found(r'method = "(\w+)"', source),
        path=re.compile(_BASE_OF.get(service, "/20160918") + re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", template)),
        query=_parameters(source),
        headers=frozenset(re.findall(r'"([a-z0-9-]+)":', _found(r"header_params = \{(.*?)\}", source))),
        body=body[1] if body else "",
        body_required=body is not None and body[2] == "required",
        answer=_optional(r'response_type="(.*?)"', source),
    )


def _found(pattern: str, source: str) -> str:
    match = re.search(pattern, source, re.DOTALL)
    if match is None:
        raise LookupError(f"the installed oci SDK has no {pattern!r} where it was expected: use oci 2.189 or near it")
    return match[1]


def _optional(pattern: str, source: str) -> str:
    match = re.search(pattern, source, re.DOTALL)
    return match[1] if match else ""


def _parameters(source: str) -> dict[str, Parameter]:
    types = {name: kind for kind, name in re.findall(r":param (\w+) (\w+): \(", source)}
    allowed = {
        name: tuple(ast.literal_eval(values))
        for name, values in re.findall(r"(\w+)_allowed_values = (\[.*?\])", source)
    }
    found = {}
    for wire, value in re.findall(r'"(\w+)": (.*?),?\n', _optional(r"query_params = \{\n(.*?\n)        \}", source)):
        optional = re.search(r'kwargs\.get\("(\w+)"', value)
        name = optional[1] if optional else value
        found[wire] = Parameter(types.get(name, "str"), optional is None, allowed.get(name, ()))
    return found


@dataclass(frozen=True)
class _Field:
    name: str
    type: str
    required: bool


@functools.cache
def _fields(model: type[Any]) -> dict[str, _Field]:
    """The attributes of an SDK model by their name on the wire."""
    sample = model()
    fields = {}
    for name, wire in sample.attribute_map.items():
        said = getattr(model, name).__doc__ or ""
        fields[wire] = _Field(name, sample.swagger_types[name], "**[Required]**" in said)
    return fields


def check(service: str, type_name: str, value: Any, where: str) -> None:
    """Check a JSON value against an SDK type such as `str`, `list[Shape]` or `LaunchInstanceDetails`.

    `where` names the value in the message. Raises ApiError 400 as the cloud does.
    """
    if value is None or type_name == "object":
        return
    if type_name in _SIMPLE:
        if not isinstance(value, _SIMPLE[type_name]) or (isinstance(value, bool) and type_name != "bool"):
            raise parse_error(f"{where} must be of type {type_name}")
    elif type_name == "datetime":
        _check_date(value, where)
    elif type_name.startswith("list["):
        if not isinstance(value, list):
            raise parse_error(f"{where} must be a list")
        for index, item in enumerate(value):
            _refuse_null(item, f"{where}[{index}]")
            check(service, type_name[5:-1], item, f"{where}[{index}]")
    elif type_name.startswith("dict("):
        if not isinstance(value, dict):
            raise parse_error(f"{where} must be an object")
        for key, item in value.items():
            _refuse_null(item, f"{where}.{key}")
            check(service, type_name[5:-1].split(", ", 1)[1], item, f"{where}.{key}")
    else:
        _check_model(service, type_name, value, where)


def _refuse_null(value: Any, where: str) -> None:
    if value is None:
        raise parse_error(f"{where} must not be null")


def _check_date(value: Any, where: str) -> None:
    try:
        datetime.fromisoformat(value.replace("Z", "+00:00"))
    except (AttributeError, ValueError) as error:
        raise parse_error(f"{where} must be a date as in RFC 3339") from error


def _check_model(service: str, type_name: str, value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise parse_error(f"{where} must be an object")
    models = importlib.import_module(f"oci.{service}.models")
    model = getattr(models, type_name)
    if hasattr(model, "get_subtype"):
        try:
            subtype = model.get_subtype(value)
        except KeyError as error:
            raise missing(f"{where}.{error.args[0]}") from error
        if subtype == type_name and subtype not in _KINDS_OF_THEIR_OWN:
            raise invalid(f"{where} is of no known kind of {type_name}")
        model = getattr(models, subtype)
    fields = _fields(model)
    judge = model()
    for wire, item in value.items():
        field = fields.get(wire)
        if field is None:
            raise parse_error(f"Unrecognized field '{wire}' in {where} ({model.__name__})")
        check(service, field.type, item, f"{where}.{wire}")
        if field.type == "str" and item is not None:
            _judge(judge, field.name, item, f"{where}.{wire}")
    for wire, field in fields.items():
        if field.required and (wire not in value or (value[wire] in (None, "") and not where.startswith(_ANSWER))):
            raise missing(f"{where}.{wire}")  # (in answers the cloud writes null: a platform image's compartment)


# Models with subtypes that are also used as they are.
_KINDS_OF_THEIR_OWN = frozenset({"CreateVnicDetails"})


def _judge(model: Any, name: str, value: str, where: str) -> None:
    """Let the SDK's own setter judge a value: it raises, or puts a placeholder, where an enumeration lacks it."""
    try:
        setattr(model, name, value)
    except ValueError as error:
        raise invalid(f"{where}: {error}") from error
    if getattr(model, name) != value:
        raise invalid(f"{where} must not be '{value}'")
