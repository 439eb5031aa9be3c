import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from ansible_collections.faceswap.ops.plugins.module_utils import oci_price_list, oci_prices
from ansible_collections.faceswap.ops.plugins.module_utils.oci_prices import Prices, read_prices

OWN = f"the list of {oci_price_list.DATE} in this collection"


def product(number: str, *tiers: dict[str, Any]) -> dict[str, Any]:
    """A product as Oracle writes it."""
    prices = [{"model": "PAY_AS_YOU_GO", **tier} for tier in tiers]
    return {"partNumber": number, "currencyCodeLocalizations": [{"currencyCode": "USD", "prices": prices}]}


def shape(name: str, gpus: int | None, preemptible: bool, **products: tuple[str, float | None]) -> dict[str, Any]:
    """A shape as Oracle writes it."""
    rows = [{"type": {"value": kind}, "partNumber": part, "qty": qty} for kind, (part, qty) in products.items()]
    return {"name": name, "gpuQty": gpus, "allowPreemptible": preemptible, "products": rows}


PRODUCTS = {
    "lastUpdated": "2026-09-23T13:10:59.000Z",
    "items": [
        product("B95909", {"value": 2.5}),
        product("B93113", {"value": 0.025}),
        product("B93114", {"value": 0.0015}),
        product(
            "B93297",
            {"value": 0.01, "rangeMin": 3000, "rangeMax": 9e9},
            {"value": 0, "rangeMin": 0, "rangeMax": 3000},
        ),
        product("B93298", {"value": 0.0015}),
        product("B110519", {"value": 10}),
        product("B93121", {"value": 0.025}),
        product("B93123", {"value": 0.0612}),
        {"partNumber": "B1", "currencyCodeLocalizations": []},
        product("B2", {"price": "unheard of"}),
    ],
}
SHAPES = {
    "items": [
        shape("VM.GPU.A10.2", 2, False, ocpu=("B95909", 30)),
        shape("BM.GPU.H200.8 (new)", 8, False, ocpu=("B110519", None)),
        shape("VM.Standard.E4.Flex", None, True, ocpu=("B93113", 0), memory=("B93114", 0)),
        shape("BM.Standard.E4.128", None, False, ocpu=("B93113", 128), memory=("B93114", 2048)),
        shape("VM.Standard.A1.Flex", None, True, ocpu=("B93297", 0), memory=("B93298", 0)),
        shape("VM.DenseIO.E4.Flex", None, False, ocpu=("B93121", 8), disk=("B93123", 6.8)),
        shape("VM.Nothing", None, False),
        {"name": "VM.Of.Another.Form"},
    ]
}


class Oracle:
    """Stands for both of Oracle's hosts, on loopback: a path is answered with what lies under it."""

    def __init__(self) -> None:
        self.pages: dict[str, tuple[int, bytes, float]] = {}  # path: status, body, seconds before it
        oracle = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body, delay = oracle.pages[self.path]
                time.sleep(delay)
                self.send_response(status)
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # who asked may have stopped listening
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def put(self, path: str, document: Any, status: int = 200, delay: float = 0) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.pages[path] = (status, body, delay)


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> Iterator[Oracle]:
    oracle = Oracle()
    oracle.put("/products", PRODUCTS)
    oracle.put("/shapes", SHAPES)
    url = f"http://127.0.0.1:{oracle.server.server_address[1]}"
    monkeypatch.setattr(oci_prices, "PRODUCTS_URL", f"{url}/products")
    monkeypatch.setattr(oci_prices, "SHAPES_URL", f"{url}/shapes")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield oracle
    oracle.server.shutdown()
    oracle.server.server_close()


@pytest.fixture
def own() -> Prices:
    """The collection's list alone."""
    parts = {part: price for part, (_, price) in oci_price_list.PARTS.items()}
    return Prices(OWN, False, oci_price_list.DATE, parts, oci_prices._own_shapes())


def test_what_oracle_says_is_taken_and_its_date_named(oracle: Oracle) -> None:
    prices = read_prices()
    assert (prices.live, prices.date) == (True, "2026-09-23")
    assert prices.source == "Oracle's price list of 2026-09-23"


@pytest.mark.parametrize(
    ("name", "ocpus", "memory_gb", "hourly"),
    [
        ("VM.GPU.A10.2", None, None, 2 * 2.5),  # the file counts 30 OCPUs, the price is for a GPU
        ("BM.GPU.H200.8", None, None, 80),  # it has the name with a remark, and no count of OCPUs
        ("VM.Standard.E4.Flex", 2, 16, 2 * 0.025 + 16 * 0.0015),
        ("VM.Standard.E4.Flex", None, None, None),
        ("BM.Standard.E4.128", None, None, 128 * 0.025 + 2048 * 0.0015),
        ("VM.Standard.A1.Flex", 1, 6, 0.01 + 6 * 0.0015),  # as if what is free were used up
        ("VM.DenseIO.E4.Flex", 16, 256, None),  # its disk grows with it, and nobody asks for a disk
        ("VM.GPU3.1", None, None, None),  # the shape is known here, but Oracle sells its part no longer
        ("VM.Nothing", None, None, None),
        ("VM.Unheard.Of", None, None, None),
    ],
)
def test_the_price_of_an_hour(
    oracle: Oracle, name: str, ocpus: float | None, memory_gb: float | None, hourly: float | None
) -> None:
    assert read_prices().hourly(name, ocpus, memory_gb, 0, False) == pytest.approx(hourly)


def test_the_collection_s_list_has_the_known_prices(own: Prices) -> None:
    hourly = {name: own.hourly(name, 1, 16, 0, False) for name in own.shapes}
    assert None not in hourly.values()
    expected = {
        "VM.GPU2.1": 1.275,
        "VM.GPU3.1": 2.95,
        "VM.GPU3.4": 11.80,
        "VM.GPU.A10.1": 2.00,
        "BM.GPU.A10.4": 8,
        "BM.GPU.L40S.4": 14,
        "BM.GPU4.8": 24.40,
        "BM.GPU.A100-v2.8": 32,
        "BM.GPU.H100.8": 80,
        "BM.GPU.H200.8": 80,
        "VM.Standard.E2.1.Micro": 0,
        "VM.Standard.A1.Flex": 0.01 + 16 * 0.0015,
        "VM.Standard.E5.Flex": 0.03 + 16 * 0.002,
    }
    assert {name: hourly[name] for name in expected} == pytest.approx(expected)


def test_every_part_of_the_collection_s_shapes_has_a_price_and_a_count_that_is_known() -> None:
    parts = [part for _, parts in oci_price_list.SHAPES.values() for part in parts]
    assert {part[0] for part in parts} <= set(oci_price_list.PARTS)
    assert {part[1] for part in parts} == {"ocpu", "memory", "gpu"}


def test_preemptible_is_half_the_price_and_not_for_every_shape(own: Prices) -> None:
    assert own.hourly("VM.GPU3.1", None, None, 1, True) == pytest.approx(2.95 / 2)
    assert own.allows_preemptible("VM.GPU3.1") is True
    assert own.allows_preemptible("VM.GPU.A10.1") is False
    assert own.allows_preemptible("VM.Unheard.Of") is None


def test_a_boot_volume_costs_its_size_and_its_performance(own: Prices) -> None:
    assert own.boot_volume(100, 10) == pytest.approx(100 * 0.0425 / 744)
    assert own.boot_volume(100, 0) == pytest.approx(100 * 0.0255 / 744)
    assert Prices("", True, "", {"B91961": 0.0255}, {}).boot_volume(100, 10) is None


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 503, "503"),
        (b"<html>", 200, "Expecting value"),
        ({"items": []}, 200, "it has no prices in USD"),
        ({"items": [{"partNumber": "B95909"}, None]}, 200, "it has no prices in USD"),
        ([], 200, "list indices"),
        (b"\xff", 200, ""),
    ],
)
def test_prices_that_cannot_be_read_are_the_collection_s(oracle: Oracle, body: Any, status: int, said: str) -> None:
    oracle.put("/products", body, status)
    prices = read_prices()
    assert (prices.live, prices.date) == (False, oci_price_list.DATE)
    assert prices.source.startswith(f"{OWN} (Oracle's could not be read: ") and said in prices.source
    assert prices.hourly("VM.GPU.A10.2", None, None, 2, False) == 4


def test_shapes_that_cannot_be_read_are_the_collection_s(oracle: Oracle) -> None:
    oracle.put("/shapes", b"", 404)
    prices = read_prices()
    assert prices.live and prices.hourly("VM.GPU.A10.2", None, None, 2, False) == 5
    assert prices.source.startswith(f"Oracle's price list of 2026-09-23 and the shapes of {OWN} (")


def test_oracle_tells_which_shapes_may_be_preemptible(oracle: Oracle) -> None:
    oracle.put("/products", b"", 503)
    oracle.put("/shapes", {"items": [shape("VM.GPU.A10.1", 1, True, ocpu=("B95909", 15))]})
    assert read_prices().allows_preemptible("VM.GPU.A10.1") is True


def test_a_file_that_never_ends_is_not_read_to_its_end(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oci_prices, "_BYTES", 100)
    assert "far longer" in read_prices().source


def test_both_files_are_read_at_once_and_not_for_longer_than_told(oracle: Oracle) -> None:
    oracle.put("/products", PRODUCTS, delay=1.5)
    oracle.put("/shapes", SHAPES, delay=1.5)
    start = time.monotonic()
    assert read_prices().live
    assert time.monotonic() - start < 2.9
    oracle.put("/products", PRODUCTS, delay=5)
    start = time.monotonic()
    assert not read_prices(0.3).live
    assert time.monotonic() - start < 1


def test_a_list_without_a_date_has_today_s(oracle: Oracle) -> None:
    oracle.put("/products", {"items": PRODUCTS["items"], "lastUpdated": "yesterday"})
    assert read_prices().date[:2] == "20"
