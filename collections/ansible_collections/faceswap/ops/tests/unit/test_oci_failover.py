"""The order of tries, what a refusal rules out, and how long a lack of capacity is waited for."""

from typing import Any

import pytest
from ansible_collections.faceswap.ops.plugins.module_utils import oci_failover
from ansible_collections.faceswap.ops.plugins.module_utils.oci_client import OciError
from ansible_collections.faceswap.ops.plugins.module_utils.oci_launch import Candidate, LaunchRefusedError, refusal
from ansible_collections.faceswap.ops.plugins.module_utils.oci_limits import Limit
from ansible_collections.faceswap.ops.plugins.module_utils.oci_plan import Plan
from ansible_collections.faceswap.ops.plugins.module_utils.oci_prices import Prices
from ansible_collections.faceswap.ops.plugins.module_utils.run_progress import RunProgress

EXCEEDED = "The following service limits were exceeded: gpu-a10-count."


class ClockDouble:
    """A double of the clock: sleeping is what makes time pass."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ClockDouble:
    double = ClockDouble()
    monkeypatch.setattr(oci_failover, "time", double)
    return double


def candidate(shape: str, domain: str, need: float = 1, scope: str = "AD", name: str = "gpu-a10-count") -> Candidate:
    limit = Limit("compute", name, scope, "us-ashburn-1", domain if scope == "AD" else "", 0, 4)
    return Candidate("us-ashburn-1", domain, shape, offered=object(), limits=[(limit, need)])


def plan(*candidates: Candidate) -> Plan:
    return Plan([], list(candidates), 24, Prices("a list", True, "2026-11-22", {}, {}), [])


class Oracle:
    """A double of the launch: `answers` are the refusals in turn, by try; '' launches."""

    def __init__(self, **answers: list[tuple[str, str] | None]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def launch(self, row: Candidate) -> Any:
        self.asked.append(row.domain)
        answers = self.answers.get(row.domain.replace("-", "_"), [])
        answer = answers.pop(0) if answers else None
        if answer:
            raise LaunchRefusedError(*answer)
        return row


def alone() -> None:
    """Nobody else has launched."""


FULL = ("capacity", "Oracle is out of capacity.")


@pytest.mark.parametrize("kind", ["capacity", "not_found", "died", "not_preemptible"])
def test_a_refusal_leads_to_the_next_try(kind: str, clock: ClockDouble) -> None:
    oracle = Oracle(AD_1=[(kind, "no.")])
    made = oci_failover.launch_first(
        plan(candidate("VM.GPU.A10.1", "AD-1"), candidate("VM.GPU.A10.1", "AD-2")),
        oracle.launch,
        0,
        alone,
        RunProgress(None),
    )
    assert (made.domain, oracle.asked, clock.now) == ("AD-2", ["AD-1", "AD-2"], 0)


def test_what_is_known_to_fail_is_not_tried(clock: ClockDouble) -> None:
    first = candidate("VM.GPU.A10.1", "AD-1")
    first.rule_out("limit", "The limit is 0.")
    oracle = Oracle()
    oci_failover.launch_first(
        plan(first, candidate("VM.GPU.A10.1", "AD-2")), oracle.launch, 0, alone, RunProgress(None)
    )
    assert oracle.asked == ["AD-2"]


def test_a_limit_rules_out_what_needs_as_much_of_it_there_and_nothing_else(clock: ClockDouble) -> None:
    rows = [
        candidate("VM.GPU.A10.2", "AD-1", 2),
        candidate("BM.GPU.A10.4", "AD-1", 4),
        candidate("VM.GPU.A10.1", "AD-1", 1),
        candidate("VM.GPU3.1", "AD-1", 1, name="gpu3-count"),
        candidate("VM.GPU.A10.2", "AD-2", 2),
    ]
    oci_failover.limit_refused(rows, rows[0], LaunchRefusedError("limit", EXCEEDED))
    assert [row.verdict for row in rows] == ["limit", "limit", "", "", ""]
    why = "gpu-a10-count of service compute is exceeded in us-ashburn-1, AD-1, says a launch: ask Oracle"
    assert rows[0].why.startswith(why) and rows[0].why.endswith(", for 2 more.")
    assert rows[0].why == rows[1].why  # said once


def test_a_limit_of_the_region_rules_out_all_its_domains() -> None:
    rows = [candidate("VM.GPU.A10.1", domain, scope="REGION") for domain in ("AD-1", "AD-2")]
    oci_failover.limit_refused(rows, rows[0], LaunchRefusedError("limit", EXCEEDED))
    assert [row.verdict for row in rows] == ["limit", "limit"]


def test_a_limit_that_the_plan_does_not_know_rules_out_its_own_try() -> None:
    rows = [candidate("VM.GPU.A10.1", domain) for domain in ("AD-1", "AD-2")]
    refused = LaunchRefusedError("limit", "The following service limits were exceeded: vcn-count.")
    oci_failover.limit_refused(rows, rows[0], refused)
    assert [row.verdict for row in rows] == ["limit", ""]
    assert rows[0].why.startswith(
        "Oracle refused VM.GPU.A10.1 in AD-1 (The following service limits were exceeded: vcn"
    )


def test_capacity_is_waited_for_with_growing_pauses(clock: ClockDouble) -> None:
    oracle = Oracle(AD_1=[FULL] * 4)
    oci_failover.launch_first(plan(candidate("VM.GPU.A10.1", "AD-1")), oracle.launch, 3600, alone, RunProgress(None))
    assert (len(oracle.asked), clock.now) == (5, 5 + 10 + 20 + 40)


def test_waiting_has_an_end_and_a_last_try_at_it(clock: ClockDouble) -> None:
    oracle = Oracle(AD_1=[FULL] * 99, AD_2=[("died", "It died.")])
    rows = [candidate("VM.GPU.A10.1", "AD-1"), candidate("VM.GPU.A10.1", "AD-2")]
    with pytest.raises(
        OciError, match=r"It died; Oracle is out of capacity for .* in AD-1, and was for 0:12: .*longer"
    ):
        oci_failover.launch_first(plan(*rows), oracle.launch, 12, alone, RunProgress(None))
    assert (clock.now, oracle.asked) == (12, ["AD-1", "AD-2", "AD-1", "AD-1"])


def test_who_is_throttled_asks_no_more_in_that_round(clock: ClockDouble) -> None:
    oracle = Oracle(AD_1=[("throttled", "Too many.")])
    rows = [candidate("VM.GPU.A10.1", "AD-1"), candidate("VM.GPU.A10.1", "AD-2")]
    made = oci_failover.launch_first(plan(*rows), oracle.launch, 60, alone, RunProgress(None))
    assert (made.domain, oracle.asked, clock.now) == ("AD-1", ["AD-1", "AD-1"], 5)


def test_another_controllers_launch_ends_the_waiting(clock: ClockDouble) -> None:
    def not_alone() -> None:
        raise OciError("Another controller has launched.")

    oracle = Oracle(AD_1=[FULL] * 9)
    with pytest.raises(OciError, match="Another controller"):
        oci_failover.launch_first(
            plan(candidate("VM.GPU.A10.1", "AD-1")), oracle.launch, 3600, not_alone, RunProgress(None)
        )
    assert (len(oracle.asked), clock.now) == (1, 5)


def test_only_capacity_is_waited_for(clock: ClockDouble) -> None:
    oracle = Oracle(AD_1=[("limit", EXCEEDED)])
    with pytest.raises(OciError, match="ask Oracle"):
        oci_failover.launch_first(
            plan(candidate("VM.GPU.A10.1", "AD-1")), oracle.launch, 3600, alone, RunProgress(None)
        )
    assert clock.now == 0


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OciError("...", 500, "InternalError", "Out of host capacity."), "capacity"),
        (OciError("create_compute_capacity_report was answered ...", 500, "InternalError", "Internal error"), ""),
        (OciError("...", 429, "TooManyRequests"), "throttled"),
        (OciError("...", 400, "LimitExceeded"), "limit"),
        (OciError("...", 400, "QuotaExceeded"), "quota"),
        (OciError("...", 404, "NotAuthorizedOrNotFound"), "not_found"),
        (OciError("Invalid Preemptible instance shape: VM.GPU.A10.1", 400, "InvalidParameter"), "not_preemptible"),
        (OciError("...", 400, "InvalidParameter"), ""),
        (OciError("...", 500, "InternalError"), ""),
        (OciError("...", 401, "NotAuthenticated"), ""),
        (OciError("..."), ""),
    ],
)
def test_what_an_answer_to_a_launch_means(error: OciError, kind: str) -> None:
    assert refusal(error) == kind
