# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""What an instance costs: Oracle's list prices in USD, read from Oracle, else the dated list in this collection.

List prices for pay as you go: without tax, discounts and free allowances. They are advice before money is
spent, so nothing here raises: what is not known is None, and where the figures come from is said with them.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Generic, TypeVar
from urllib.error import HTTPError

from ansible.module_utils.urls import open_url
from ansible_collections.faceswap.ops.plugins.module_utils import oci_price_list

PRODUCTS_URL = "https://apexapps.oracle.com/pls/apex/cetools/api/v1/products/?currencyCode=USD"
SHAPES_URL = "https://www.oracle.com/a/ocom/docs/cloudestimator2/data/shapes.json"

# Oracle sells a GB for a month and prorates it over the seconds of the calendar month (oracle.com, Block Volumes
# Pricing). Here it is the month of its Cost Estimator, of 31 days; an hour of February costs a tenth more.
MONTH_H = 744
PREEMPTIBLE = 0.5  # preemptible capacity is half the price, everywhere and always (Oracle's announcement)

_BYTES = 8_000_000  # the shapes are 0.2 MB, the products about 1 MB

_ODD = contextlib.suppress(KeyError, TypeError, ValueError, AttributeError)  # an item not of the form: without it

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """A part of a shape: `count` times what `kind` counts (ocpu, memory in GB, gpu); 0: as many as are asked for."""

    number: str
    kind: str
    count: float


@dataclass(frozen=True)
class Shape:
    """What a shape is billed as, and whether it can be had as preemptible capacity."""

    parts: tuple[Part, ...]
    preemptible: bool


@dataclass(frozen=True)
class Prices:
    """Price list and shapes; `source` is for people, `live` is false where the prices are the collection's own."""

    source: str
    live: bool
    date: str
    parts: Mapping[str, float]
    shapes: Mapping[str, Shape]

    def hourly(
        self, shape: str, ocpus: float | None, memory_gb: float | None, gpus: int, preemptible: bool
    ) -> float | None:
        """USD an hour for a running instance without its volumes; None: not known."""
        known = self.shapes.get(shape)
        if known is None or not known.parts:
            return None
        asked = {"ocpu": ocpus, "memory": memory_gb, "gpu": gpus}
        total = 0.0
        for part in known.parts:
            count = part.count or asked.get(part.kind)
            price = self.parts.get(part.number)
            if not count or price is None:
                return None
            total += count * price
        return total * (PREEMPTIBLE if preemptible else 1)

    def boot_volume(self, gb: int, vpus: int) -> float | None:
        """USD an hour for a volume of so many GB with so many performance units a GB; None: not known."""
        storage = self.parts.get(oci_price_list.STORAGE_PART)
        performance = self.parts.get(oci_price_list.PERFORMANCE_PART)
        if storage is None or performance is None:
            return None
        return gb * (storage + vpus * performance) / MONTH_H

    def allows_preemptible(self, shape: str) -> bool | None:
        """Whether the shape can be had as preemptible capacity; None: not known."""
        known = self.shapes.get(shape)
        return known.preemptible if known else None


def read_prices(timeout_s: float = 10) -> Prices:
    """Read both of Oracle's files at once, for at most so long; what cannot be read is taken from the collection."""
    end = time.monotonic() + timeout_s
    products_file = _Reading(PRODUCTS_URL, _products, timeout_s)
    shapes_file = _Reading(SHAPES_URL, _shapes, timeout_s)
    products, shapes = products_file.found(end), shapes_file.found(end)
    own = f"the list of {oci_price_list.DATE} in this collection"
    if products:
        day, parts = products
        source = f"Oracle's price list of {day}"
        if not shapes:
            source += f" and the shapes of {own} (Oracle's could not be read: {shapes_file.fault})"
    else:
        day, parts = oci_price_list.DATE, {part: price for part, (_, price) in oci_price_list.PARTS.items()}
        source = f"{own} (Oracle's could not be read: {products_file.fault})"
    return Prices(source, bool(products), day, parts, {**_own_shapes(), **(shapes or {})})


class _Reading(Generic[T]):
    """A file of Oracle's, being read from now on. `fault` says why it was not found."""

    def __init__(self, url: str, understand: Callable[[Any], T], timeout_s: float) -> None:
        self.fault = "no answer in time"
        self._found: T | None = None
        self._thread = threading.Thread(target=self._read, args=(url, understand, timeout_s), daemon=True)
        self._thread.start()  # daemon: one that hangs must not hold up the end of the run

    def found(self, end: float) -> T | None:
        """What is there until then, by the monotonic clock."""
        self._thread.join(max(end - time.monotonic(), 0))
        return self._found

    def _read(self, url: str, understand: Callable[[Any], T], timeout_s: float) -> None:
        try:
            with open_url(url, timeout=timeout_s, use_netrc=False) as answer:
                content = answer.read(_BYTES + 1)
            if len(content) > _BYTES:
                raise ValueError("far longer than ever before")
            self._found = understand(json.loads(content))
        except Exception as error:  # whatever it is, a price must not stop a launch
            self.fault = _reason(error)


def _own_shapes() -> dict[str, Shape]:
    return {
        name: Shape(tuple(Part(*part) for part in parts), preemptible)
        for name, (preemptible, parts) in oci_price_list.SHAPES.items()
    }


def _products(document: Any) -> tuple[str, dict[str, float]]:
    """The day of the price list, and USD by part number."""
    prices: dict[str, float] = {}
    for item in document["items"]:
        with _ODD:
            tiers = [
                price
                for localization in item["currencyCodeLocalizations"]
                if localization["currencyCode"] == "USD"
                for price in localization["prices"]
                if price["model"] == "PAY_AS_YOU_GO"
            ]
            # The last: what is free, or cheaper, up to an amount may be used up
            prices[item["partNumber"]] = float(max(tiers, key=lambda tier: tier.get("rangeMin") or 0)["value"])
    if not prices:
        raise ValueError("it has no prices in USD")
    return _day(document.get("lastUpdated")), prices


def _day(written: Any) -> str:
    try:
        return date.fromisoformat(str(written)[:10]).isoformat()
    except ValueError:
        return datetime.now(UTC).date().isoformat()


def _shapes(document: Any) -> dict[str, Shape]:
    """The shapes by the names that the API has for them."""
    shapes: dict[str, Shape] = {}
    for item in document["items"]:
        with _ODD:
            parts = tuple(
                Part(product["partNumber"], *_counted(item, product["type"]["value"], product["qty"]))
                for product in item["products"]
            )
            shapes[item["name"].split(" ")[0]] = Shape(parts, item["allowPreemptible"] is True)
    if not shapes:
        raise ValueError("it has no shapes")
    return shapes


def _counted(item: Any, kind: str, quantity: float | None) -> tuple[str, float]:
    """What a part is counted by, and how often the shape has it."""
    if item["gpuQty"]:  # written as so many OCPUs there, but priced for a GPU, OCPUs and memory included
        return "gpu", float(item["gpuQty"])
    if item["name"].endswith(".Flex"):  # mostly 0 there, but some have the smallest instance
        return kind, 0.0
    return kind, float(quantity or 0)


def _reason(error: BaseException) -> str:
    said = str(error if isinstance(error, HTTPError) else getattr(error, "reason", error))
    return " ".join(said.split())[:120] or type(error).__name__
