import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import oci
import pytest
from ansible_collections.faceswap.ops.plugins.module_utils import oci_client
from ansible_collections.faceswap.ops.plugins.module_utils.oci_limits import (
    Limit,
    Limits,
    exhausted,
    needed,
    suffices,
)

REGION, DOMAIN = "eu-frankfurt-1", "Uocm:EU-FRANKFURT-1-AD-1"
TENANCY, COMPARTMENT = "ocid1.tenancy.oc1..aaaa", "ocid1.compartment.oc1..aaaa"
GPU = ("compute", "gpu-a10-count")
VCN = ("vcn", "vcn-count")


def refusal(status: int, code: str = "NotAuthorizedOrNotFound") -> Any:
    return oci.exceptions.ServiceError(status, code, {}, "no")


class LimitsServiceDouble:
    """Stands for Oracle's limits service: three limits, what is told of them, and what is refused."""

    def __init__(self) -> None:
        self.scopes = {GPU: "AD", VCN: "REGION", ("compute", "dvh-count"): "AD"}
        self.left: dict[str, Any] = {"gpu-a10-count": (0.0, 4.0, None), "vcn-count": (3.0, 47.0, None)}
        self.granted = {"gpu-a10-count": 4, "vcn-count": 50, "dvh-count": 0}
        self.refused: dict[str, Exception] = {}
        self.requests: list[str] = []
        self.compartments: set[str] = set()

    def list_limit_definitions(self, compartment_id: str, service_name: str, limit: int) -> Any:
        self._note("definitions", service_name, compartment_id)
        return self._answer(
            SimpleNamespace(name=name, scope_type=scope, is_resource_availability_supported=name in self.left)
            for (service, name), scope in self.scopes.items()
            if service == service_name
        )

    def list_limit_values(
        self, compartment_id: str, service_name: str, name: str, availability_domain: str | None = None
    ) -> Any:
        self._note("values", name, compartment_id)
        assert bool(availability_domain) == (self.scopes[service_name, name] == "AD")
        return self._answer([SimpleNamespace(value=self.granted[name])])

    def get_resource_availability(
        self, service_name: str, limit_name: str, compartment_id: str, availability_domain: str | None = None
    ) -> Any:
        self._note("availability", limit_name, compartment_id)
        if (service_name, limit_name) not in self.scopes:
            raise refusal(404)
        if bool(availability_domain) != (self.scopes[service_name, limit_name] == "AD"):
            raise refusal(400, "InvalidParameter")
        used, available, quota = self.left[limit_name]
        row = SimpleNamespace(used=None, available=None, effective_quota_value=quota)
        row.fractional_usage, row.fractional_availability = used, available
        return SimpleNamespace(data=row, headers={})

    def _note(self, kind: str, what: str, compartment: str) -> None:
        self.requests.append(f"{kind} {what}")
        assert compartment == (COMPARTMENT if kind == "availability" else TENANCY)
        if kind in self.refused:
            raise self.refused[kind]

    @staticmethod
    def _answer(rows: Any) -> Any:
        return SimpleNamespace(data=list(rows), headers={})


class CloudWithDouble(oci_client.Cloud):
    """A tenancy whose limits service is a double."""

    def __init__(self, service: LimitsServiceDouble) -> None:
        super().__init__({"tenancy": TENANCY, "region": REGION}, None, "profile DEFAULT", "check it.")
        self._clients[LimitsServiceDouble, REGION] = service

    def limits(self, region: str) -> Any:
        return self._client(LimitsServiceDouble, region)


@pytest.fixture
def service() -> LimitsServiceDouble:
    return LimitsServiceDouble()


@pytest.fixture
def limits(service: LimitsServiceDouble) -> Limits:
    return Limits(CloudWithDouble(service))


def test_what_is_left_of_a_limit_of_a_domain(limits: Limits) -> None:
    limit = limits.of(REGION, *GPU, DOMAIN, COMPARTMENT)
    assert (limit.scope, limit.domain, limit.where) == ("AD", DOMAIN, f"{REGION}, {DOMAIN}")
    assert (limit.used, limit.available, limit.value, limit.unreadable) == (0, 4, 4, "")
    assert (suffices(limit, 4), suffices(limit, 5)) == (True, False)


def test_a_limit_of_the_region_is_asked_for_once_for_all_its_domains(
    limits: Limits, service: LimitsServiceDouble
) -> None:
    found = [limits.of(REGION, *VCN, domain, COMPARTMENT) for domain in (DOMAIN, "another", "")]
    assert found[0] == found[1] == found[2]
    assert (found[0].scope, found[0].where, found[0].value) == ("REGION", REGION, 50)
    assert service.requests == ["definitions vcn", "availability vcn-count"]


def test_threads_that_ask_for_the_same_do_not_ask_oracle_twice(limits: Limits, service: LimitsServiceDouble) -> None:
    together = threading.Barrier(8)

    def ask(_: int) -> Limit:
        together.wait(5)
        return limits.of(REGION, *GPU, DOMAIN, COMPARTMENT, 9)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1
    assert sorted(service.requests) == ["availability gpu-a10-count", "definitions compute", "values gpu-a10-count"]


@pytest.mark.parametrize(
    ("limit", "domain", "scope", "asked"), [(GPU, DOMAIN, "AD", 1), (VCN, "", "", 2)], ids=["domain", "region"]
)
def test_without_definitions_the_scope_is_tried(
    limits: Limits, service: LimitsServiceDouble, limit: tuple[str, str], domain: str, scope: str, asked: int
) -> None:
    service.refused["definitions"] = refusal(404)
    found = limits.of(REGION, *limit, DOMAIN, COMPARTMENT)
    assert (found.domain, found.scope, found.unreadable) == (domain, scope, "")
    assert found.available == service.left[limit[1]][1]
    assert len([request for request in service.requests if request.startswith("availability")]) == asked


@pytest.mark.parametrize("definitions", [True, False])
def test_a_missing_policy_is_named_and_stops_nothing(
    limits: Limits, service: LimitsServiceDouble, definitions: bool
) -> None:
    service.refused["availability"] = refusal(404)
    if not definitions:
        service.refused["definitions"] = service.refused["values"] = refusal(404)
    limit = limits.of(REGION, *GPU, DOMAIN, COMPARTMENT)
    assert (limit.used, limit.available, suffices(limit, 1)) == (None, None, None)
    assert limit.unreadable == (
        "What is left of the limits in eu-frankfurt-1 cannot be read: the policy 'Allow group <your group> to read "
        "resource-availability in tenancy' is missing (docs/oci-setup.md, 'Policy')."
    )


def test_a_limit_that_does_not_exist(limits: Limits) -> None:
    limit = limits.of(REGION, "compute", "gpu-b1000-count", DOMAIN, COMPARTMENT)
    assert limit.unreadable == "The service compute has no limit gpu-b1000-count in eu-frankfurt-1."


def test_a_limit_whose_use_oracle_does_not_count(limits: Limits, service: LimitsServiceDouble) -> None:
    limit = limits.of(REGION, "compute", "dvh-count", DOMAIN, COMPARTMENT)
    assert (limit.available, limit.value, limit.unreadable) == (0, 0, "")
    service.granted["dvh-count"] = 2
    limit = Limits(CloudWithDouble(service)).of(REGION, "compute", "dvh-count", DOMAIN, COMPARTMENT)
    assert (limit.available, limit.value) == (None, 2)
    assert limit.unreadable.startswith("Oracle does not tell how much of the limit dvh-count is left")


def test_an_answer_without_figures_tells_nothing(limits: Limits, service: LimitsServiceDouble) -> None:
    service.left["vcn-count"] = (None, None, None)
    limit = limits.of(REGION, *VCN, DOMAIN, COMPARTMENT)
    assert (limit.available, limit.value) == (None, 50)
    assert limit.unreadable.startswith("Oracle does not tell")


def test_a_signature_that_is_not_accepted_ends_it(limits: Limits, service: LimitsServiceDouble) -> None:
    service.refused["definitions"] = refusal(401, "NotAuthenticated")
    for _ in range(2):
        with pytest.raises(oci_client.OciError, match="did not accept the signature"):
            limits.of(REGION, *GPU, DOMAIN, COMPARTMENT)


@pytest.mark.parametrize(
    ("name", "amount"),
    [
        ("standard-e5-core-count", 2),
        ("standard-e5-memory-count", 16),
        ("gpu-a10-count", 4),
        ("gpu3-count", 4),
        ("vm-standard-e2-1-micro-count", 1),
        ("vcn-count", 1),
    ],
)
def test_what_an_instance_takes_of_a_limit(name: str, amount: float) -> None:
    assert needed(name, 2, 16, 4) == amount


@pytest.mark.parametrize(
    ("used", "available", "quota", "granted", "amount", "sentence"),
    [
        (
            *(0, 0, None, 0, 1),
            "The limit gpu-a10-count of service compute is 0 in eu-frankfurt-1, Uocm:EU-FRANKFURT-1-AD-1: ask Oracle "
            "for 1 (docs/oci-setup.md, 'Limits').",
        ),
        (
            *(0, 1, None, 1, 2),
            "The limit gpu-a10-count of service compute is 1 in eu-frankfurt-1, Uocm:EU-FRANKFURT-1-AD-1: ask Oracle "
            "for 2 (docs/oci-setup.md, 'Limits').",
        ),
        (  # one of the three is another compartment's
            *(2, 1, None, 4, 2),
            "Of the limit gpu-a10-count of service compute 3 of 4 are in use in eu-frankfurt-1, "
            "Uocm:EU-FRANKFURT-1-AD-1, and 2 more would be needed: terminate what is idle, or ask Oracle for 5 "
            "(docs/oci-setup.md, 'Limits').",
        ),
        (
            *(1, 0, 1, 4, 1),
            "A quota of the tenancy holds gpu-a10-count of service compute at 1 for this compartment in "
            "eu-frankfurt-1, Uocm:EU-FRANKFURT-1-AD-1, 1 of that is in use, and 1 more would be needed: raise the "
            "quota to 2 (docs/oci-setup.md, 'A cap on costs').",
        ),
        (
            *(None, None, None, None, 1),
            "The limit gpu-a10-count of service compute does not allow 1 more in eu-frankfurt-1, "
            "Uocm:EU-FRANKFURT-1-AD-1: ask Oracle for it (docs/oci-setup.md, 'Limits').",
        ),
    ],
    ids=["zero", "too low", "used up", "quota", "unknown"],
)
def test_the_sentence_names_cause_and_remedy(
    used: float, available: float, quota: float, granted: float, amount: float, sentence: str
) -> None:
    limit = Limit(*GPU, "AD", REGION, DOMAIN, used, available, quota, granted)
    assert exhausted(limit, amount) == sentence


def test_a_quota_of_nothing_is_not_taken_for_oracle_s_limit(limits: Limits, service: LimitsServiceDouble) -> None:
    service.left["gpu-a10-count"] = (0.0, 0.0, 0.0)
    assert "A quota of the tenancy holds" in exhausted(limits.of(REGION, *GPU, DOMAIN, COMPARTMENT), 1)
    service.refused["values"] = refusal(404)
    limit = Limits(CloudWithDouble(service)).of(REGION, *GPU, DOMAIN, COMPARTMENT)
    assert "A quota of the tenancy holds" in exhausted(limit, 1)
