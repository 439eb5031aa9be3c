"""Oracle's public price list: what a part costs, and of which parts a shape is made. Unsigned, as the real one."""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .answer import Answer
from .catalogue import PARTS, SHAPES, Part, Shape

# Which document each host carries, and under which path. The names stand in faults, as those of operations do.
_DOCUMENTS = {
    "apexapps.oracle.com": ("GetPriceList", "/pls/apex/cetools/api/v1/products/"),
    "www.oracle.com": ("GetPriceShapes", "/a/ocom/docs/cloudestimator2/data/shapes.json"),
}
HOSTS = frozenset(_DOCUMENTS)
_DATE = "2026-11-20T09:09:55.872Z"


def document(host: str, method: str, target: str) -> str:
    """The name of the document that a request asks for; empty for none."""
    name, path = _DOCUMENTS[host]
    return name if (method, urlsplit(target).path) == ("GET", path) else ""


def answer(name: str, target: str) -> Answer:
    """One of the documents."""
    query = parse_qs(urlsplit(target).query)
    if name == "GetPriceShapes":
        return _json({"items": [_shape(shape) for shape in SHAPES.values() if shape.parts]})
    if query.get("currencyCode") != ["USD"]:
        return Answer(400, {}, b'{"message": "The emulator knows prices in USD only"}')
    wanted = query.get("partNumber", PARTS)
    return _json({"lastUpdated": _DATE, "items": [_part(*item) for item in PARTS.items() if item[0] in wanted]})


def _json(value: Any) -> Answer:
    return Answer(200, {}, json.dumps(value).encode())


def _part(number: str, part: Part) -> dict[str, Any]:
    prices: list[dict[str, Any]] = [{"model": "PAY_AS_YOU_GO", "value": part.price}]
    if part.free:
        prices[0] |= {"rangeMin": part.free, "rangeMax": 999999999}
        prices.insert(0, {"model": "PAY_AS_YOU_GO", "value": 0, "rangeMin": 0, "rangeMax": part.free})
    return {
        "partNumber": number, "displayName": part.name, "metricName": part.metric, "serviceCategory": part.category,
        "currencyCodeLocalizations": [{"currencyCode": "USD", "prices": prices}],
    }  # fmt: skip


def _shape(shape: Shape) -> dict[str, Any]:
    """A shape as the cost estimator's file has it: the part of a GPU shape is of the type ocpu there too."""
    kind = "flexible" if shape.flexible else "gpu"
    sizes = [(shape.ocpus, shape.max_ocpus), (shape.memory, shape.max_ocpus * 12)]
    products = [
        {
            "type": {"value": name, "label": label}, "partNumber": part, "qty": 0 if shape.flexible else int(size),
            "min": 1 if shape.flexible else None, "max": int(most) if shape.flexible else None, "default": None,
        }
        for part, (name, label), (size, most) in zip(
            shape.parts, (("ocpu", "OCPU"), ("memory", "Memory")), sizes, strict=False
        )
    ]  # fmt: skip
    return {
        "name": shape.name, "status": "ACTIVE", "hidden": False, "subType": {"value": kind, "label": kind.title()},
        "shapeType": {"value": shape.name[:2].lower(), "label": shape.name[:2]}, "products": products,
        "bundleMemoryQty": 0 if shape.flexible else int(shape.memory), "gpuQty": shape.gpus or None,
        "allowPreemptible": shape.preemptible,
    }  # fmt: skip
