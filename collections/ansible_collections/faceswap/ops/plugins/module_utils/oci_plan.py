# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""What a launch would be, before money is spent: every try in its order, its price, its limits, what forbids it.

Only asks. What Oracle says for certain (no such shape, a limit) rules a try out; what it guesses (the capacity
report) does not: the report has been wrong both ways, so it ranks the tries and the launch decides.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from ansible_collections.faceswap.ops.plugins.module_utils import oci_launch
from ansible_collections.faceswap.ops.plugins.module_utils.oci_client import AT_ONCE, Cloud, OciError, models
from ansible_collections.faceswap.ops.plugins.module_utils.oci_launch import Candidate, Choice, Wish
from ansible_collections.faceswap.ops.plugins.module_utils.oci_limits import (
    Limit,
    Limits,
    exhausted,
    needed,
    suffices,
)
from ansible_collections.faceswap.ops.plugins.module_utils.oci_prices import Prices, read_prices
from ansible_collections.faceswap.ops.plugins.module_utils.oci_stack import words
from ansible_collections.faceswap.ops.plugins.module_utils.progress import clock
from ansible_collections.faceswap.ops.plugins.module_utils.run_ledger import Ledger

COMPUTE = "compute"  # the service of the limits that a shape counts against

_CAPACITY = {  # of the capacity report, in the words of the table
    "AVAILABLE": "free",
    "OUT_OF_HOST_CAPACITY": "full",
    "HARDWARE_NOT_SUPPORTED": "none here",
    "": "unknown",
}


_GPU_ACCOUNT = "with Pay As You Go or credits, once Oracle has raised the limit; never with Free Tier"
_ACCOUNTS = {  # by the SDK's Shape.billing_type
    "ALWAYS_FREE": "with every account, Always Free",
    "LIMITED_FREE": "with every account, free up to an allowance",
    "PAID": "with Pay As You Go or credits, a trial's too",
}


@dataclass
class Plan:
    """All tries in their order; `makes` are the kinds of what the first of them would make.

    `notes` are sentences on what could not be had as asked, or not be read. Where the instance stands already there
    are no tries, and `standing` is what is to be said of it.
    """

    makes: list[str]
    candidates: list[Candidate]
    hours: int
    prices: Prices
    notes: list[str]
    standing: Sequence[str] = ()

    def possible(self) -> list[Candidate]:
        """The tries that nothing forbids."""
        return [candidate for candidate in self.candidates if not candidate.verdict]

    def refusal(self, waited_s: float = 0) -> str:
        """Why nothing of it can be launched, in one sentence that names each cause with its remedy."""
        causes = {row.why: row.verdict for row in self.candidates}
        whys = [why for why in self._whys() if causes[why] != "capacity"]
        if full := [row for row in self.candidates if row.verdict == "capacity"]:
            shapes = ", ".join(dict.fromkeys(row.shape for row in full))
            places = ", ".join(dict.fromkeys(row.domain for row in full))
            since, wait = (f", and was for {clock(waited_s)}", "wait longer") if waited_s else ("", "wait for one")
            whys.append(
                f"Oracle is out of capacity for {shapes} in {places}{since}: name further shapes, "
                f"availability_domains or regions, or let it {wait} (capacity_wait_s)."
            )
        if len(whys) == 1:
            return whys[0]
        return f"Nothing can be launched: {'; '.join(why.rstrip('.') for why in whys)}."

    def as_data(self) -> dict[str, Any]:
        """The plan for programs, as the module's RETURN tells."""
        return {
            "lines": self.lines(),
            "makes": self.makes,
            "hours": self.hours,
            "currency": "USD",
            "prices": self.prices.source,
            "prices_date": self.prices.date,
            "prices_live": self.prices.live,
            "notes": self.notes,
            "tries": [_as_data(row, self.hours) for row in self.candidates],
        }

    def lines(self) -> list[str]:
        """The plan for people: what would be made, a table of the tries, and below it what is to be said of them."""
        if self.standing:
            return [*self.standing, self._by_whom()]
        rows: list[tuple[str, ...]] = [
            ("try", "shape", "where", "USD/h", f"USD for {self.hours} h", "limit: needed of left", "capacity")
        ]
        number = 0
        for row in self.candidates:
            number += not row.verdict
            rows.append(("-" if row.verdict else str(number), *self._cells(row)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        images = ", ".join(dict.fromkeys(row.choice.image for row in self.candidates if row.choice)) or "none"
        accounts: dict[str, dict[str, None]] = {}
        for row in self.candidates:
            if row.offered:
                accounts.setdefault(account(row.offered), {})[row.shape] = None
        return [
            f"To be made: {', '.join(map(words, self.makes))}. Image: {images}.",
            *table,
            *self._at_most(),
            self._by_whom(),
            "Capacity is what Oracle reports: advice, the launch decides.",
            *(f"{', '.join(shapes)}: {who}." for who, shapes in accounts.items()),
            *(self._whys() if self.possible() else []),  # else the failure says them
            *self.notes,
        ]

    def _by_whom(self) -> str:
        return f"With the boot volume, by {self.prices.source}, without tax, discounts and free allowances."

    def _cells(self, row: Candidate) -> tuple[str, ...]:
        shape = row.shape + (" preemptible" if row.preemptible else "")
        state = row.verdict.replace("_", " ") or _CAPACITY.get(row.capacity, row.capacity)
        if not row.offered:
            return (shape, row.domain, "", "", "", state)
        money = ("?", "?") if row.hourly is None else (f"{row.hourly:.2f}", f"{row.hourly * self.hours:.2f}")
        mine = [pair for pair in row.limits if pair[0].service == COMPUTE]
        tightest = max(mine, key=lambda pair: pair[1] / (pair[0].available or 1e-9), default=None)
        limit = f"{tightest[0].name}: {tightest[1]:g} of {_left(tightest[0])}" if tightest else ""
        return (shape, row.domain, *money, limit, state)

    def _at_most(self) -> list[str]:
        """The dearest of several: who lets the list be tried has agreed to it."""
        known = [row for row in self.possible() if row.hourly is not None]
        dearest = max(known, key=lambda row: row.hourly or 0, default=None)
        if dearest is None or len({row.hourly for row in known}) == 1:
            return []
        return [f"At most USD {dearest.hourly:.2f} an hour: {dearest.what}."]

    def _whys(self) -> list[str]:
        """The sentences on what is ruled out; that a shape is had here and not there is in the table."""
        had = {row.shape for row in self.candidates if row.offered}
        rows = [
            row
            for row in self.candidates
            if row.shape not in had or row.verdict not in ("not_offered", "wrong_region")
        ]
        return list(dict.fromkeys(row.why for row in rows if row.why))


def make_plan(
    cloud: Cloud,
    compartment: str,
    makes: Mapping[str, list[str]],
    wish: Wish,
    ledger: Ledger,
    hours: int,
) -> Plan:
    """Find out about every try: for each region each shape, for each shape each availability domain.

    `makes` has the regions to try, in their order, with the kinds of what would be made in each.
    Raises OciError for what another wish mends whatever Oracle has, and where Oracle does not answer at all.
    """
    notes: list[str] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        reading = pool.submit(read_prices)
        offers = {region: _offers(cloud, region, compartment, pool) for region in makes}
        candidates = _candidates(offers, wish)
        offered = [row for row in candidates if row.offered]
        for row in offered:
            oci_launch.check_size(row.offered, wish)
        reports = [pool.submit(_report, cloud, rows, wish) for rows in _by_domain(offered)]
        limits = Limits(cloud)
        read = [
            pool.submit(_read_limits, limits, compartment, wish, "vcn" in makes[row.region], row) for row in offered
        ]
        _choose(cloud, compartment, wish, ledger, offered)  # here, for it writes to the ledger
        notes += [note for report in reports if (note := report.result())]
        for job in read:
            job.result()
        prices = reading.result()
    _judge_offers(cloud, compartment, offers, candidates, prices, notes)
    for row in offered:
        _price(row, wish, prices, notes)
    _judge_limits(offered, notes)
    if not wish.availability_domains:  # nobody's order: what is reported full comes last among its like
        first = {(row.region, row.shape): place for place, row in reversed(list(enumerate(candidates)))}
        candidates.sort(key=lambda row: (first[row.region, row.shape], row.capacity == "OUT_OF_HOST_CAPACITY"))
    first_region = next((row.region for row in candidates if not row.verdict), next(iter(makes)))
    return Plan(makes[first_region], candidates, hours, prices, list(dict.fromkeys(notes)))


def _offers(cloud: Cloud, region: str, compartment: str, pool: ThreadPoolExecutor) -> dict[str, dict[str, Any]]:
    """The shapes (by name) that each availability domain of a region offers to the tenancy."""
    domains = [row.name for row in cloud.listing(cloud.identity(region).list_availability_domains, cloud.tenancy)]
    client = cloud.compute(region)

    def shapes(domain: str) -> dict[str, Any]:
        rows = cloud.listing(client.list_shapes, compartment, availability_domain=domain)
        return {row.shape: row for row in rows}

    return dict(zip(domains, pool.map(shapes, domains), strict=True))


def _candidates(offers: dict[str, dict[str, dict[str, Any]]], wish: Wish) -> list[Candidate]:
    # People write AD-2 for what Oracle calls Uocm:US-ASHBURN-AD-2.
    domains = {region: list(offer) for region, offer in offers.items()}
    for name in wish.availability_domains:
        if not any(domain.endswith(name) for known in domains.values() for domain in known):
            there = ", ".join(domain for known in domains.values() for domain in known)
            raise OciError(f"There is no availability domain {name} in {', '.join(domains)}, but {there}.")
    if wish.availability_domains:
        domains = {
            region: [domain for name in wish.availability_domains for domain in known if domain.endswith(name)]
            for region, known in domains.items()
        }
    return [
        Candidate(region, domain, shape, offers[region][domain].get(shape))
        for region, known in domains.items()
        for shape in dict.fromkeys(wish.shapes)
        for domain in dict.fromkeys(known)
    ]


def _by_domain(rows: Iterable[Candidate]) -> list[list[Candidate]]:
    groups: dict[str, list[Candidate]] = {}
    for row in rows:
        groups.setdefault(row.domain, []).append(row)
    return list(groups.values())


def _judge_offers(
    cloud: Cloud,
    compartment: str,
    offers: dict[str, dict[str, dict[str, Any]]],
    candidates: list[Candidate],
    prices: Prices,
    notes: list[str],
) -> None:
    """Tell apart why a shape is not offered: here, anywhere, or not at all."""
    elsewhere: dict[str, set[str]] | None = None
    for row in candidates:
        if row.offered:
            continue
        offer = offers[row.region]
        if there := [domain for domain, shapes in offer.items() if row.shape in shapes]:
            row.rule_out(
                "not_offered",
                f"The shape {row.shape} is not offered in {row.domain}, but in {', '.join(there)}: name one of these "
                "in availability_domains, or none.",
            )
            continue
        if elsewhere is None:  # one request a region, and only for what is not to be had here
            elsewhere = _elsewhere(cloud, compartment, offers, notes)
        _judge_absence(row, offer, elsewhere, prices)


def _elsewhere(
    cloud: Cloud, compartment: str, offers: dict[str, dict[str, dict[str, Any]]], notes: list[str]
) -> dict[str, set[str]]:
    """What the subscribed regions offer that are not on the list: it only makes for a better sentence."""

    def shapes(region: str) -> set[str]:
        try:
            return {row.shape for row in cloud.listing(cloud.compute(region).list_shapes, compartment)}
        except OciError as error:
            notes.append(f"What {region} offers is not known: {error}")
            return set()

    regions = [region for region in cloud.regions() if region not in offers]
    return dict(zip(regions, cloud.at_once(shapes, regions), strict=True))


def _judge_absence(
    row: Candidate, offer: dict[str, dict[str, Any]], elsewhere: dict[str, set[str]], prices: Prices
) -> None:
    if there := [region for region, shapes in elsewhere.items() if row.shape in shapes]:
        others = " and ".join(there)
        row.rule_out(
            "wrong_region",
            f"The region {row.region} does not offer the shape {row.shape}, and {others} would: add that to regions.",
        )
    elif row.shape in prices.shapes:
        row.rule_out(
            "not_entitled",
            f"The tenancy is not entitled to the shape {row.shape}: Oracle sells it, and offers it to you in none of "
            f"your regions ({', '.join([row.region, *elsewhere])}); upgrade to Pay As You Go if the account is a "
            "Free Tier one, subscribe to a region that has it, or ask Oracle for it (docs/oci-setup.md, 'Limits').",
        )
    else:
        known = {*prices.shapes, *(name for shapes in offer.values() for name in shapes)}
        near = difflib.get_close_matches(row.shape, sorted(known), 3, 0.6)
        row.rule_out(
            "unknown_shape",
            f"The shape {row.shape} is not offered to this tenancy in {', '.join(offer)}, and no price list knows it"
            + (f"; near it are {', '.join(near)}" if near else "")
            + ": check its name.",
        )


def _choose(cloud: Cloud, compartment: str, wish: Wish, ledger: Ledger, offered: list[Candidate]) -> None:
    """The image is the region's, so one search serves all its domains."""
    choices: dict[tuple[str, str], Choice | OciError] = {}
    for row in offered:
        place = (row.region, row.shape)
        if place not in choices:
            try:
                choices[place] = oci_launch.choose(cloud, row.region, compartment, row.offered, wish, ledger)
            except OciError as error:
                if error.status is not None or error.code:  # Oracle's own: it says nothing of the image
                    raise
                choices[place] = error
        found = choices[place]
        if isinstance(found, OciError):
            row.rule_out("no_image", str(found))
        else:
            row.choice = found


def _report(cloud: Cloud, rows: list[Candidate], wish: Wish) -> str:
    """Fill in what Oracle reports of the capacity in one domain; return a sentence if it says nothing."""
    details = models.CreateComputeCapacityReportDetails(
        compartment_id=cloud.tenancy,  # always the root one (API reference)
        availability_domain=rows[0].domain,
        shape_availabilities=[
            models.CreateCapacityReportShapeAvailabilityDetails(
                instance_shape=row.shape,
                instance_shape_config=(
                    models.CapacityReportInstanceShapeConfig(ocpus=wish.ocpus, memory_in_gbs=wish.memory_gb)
                    if oci_launch.is_flexible(row.offered)
                    else None
                ),
            )
            for row in rows
        ],
    )
    try:
        report = cloud.call(cloud.compute(rows[0].region).create_compute_capacity_report, details)
    except OciError as error:
        if error.status == 400 and len(rows) > 1:  # one shape that Oracle does not report hides the others
            return next(filter(None, [_report(cloud, [row], wish) for row in rows]), "")
        return f"No capacity report: {error}"
    found = {entry.instance_shape: entry.availability_status or "" for entry in report.shape_availabilities}
    for row in rows:
        row.capacity = found.get(row.shape, "")
    return ""


def _read_limits(limits: Limits, compartment: str, wish: Wish, new_vcn: bool, row: Candidate) -> None:
    assert row.offered is not None
    flexible = oci_launch.is_flexible(row.offered)
    ocpus, memory = (wish.ocpus, wish.memory_gb) if flexible else (row.offered.ocpus, row.offered.memory_in_gbs)
    wanted = [
        (COMPUTE, name, needed(name, ocpus or 0, memory or 0, row.offered.gpus or 0))
        for name in row.offered.quota_names or []
    ]
    wanted.append(("block-storage", "total-storage-gb", float(wish.boot_volume_gb)))
    if new_vcn:
        wanted.append(("vcn", "vcn-count", 1.0))
    for service, name, amount in wanted:
        row.limits.append((limits.of(row.region, service, name, row.domain, compartment, amount), amount))


def _judge_limits(offered: list[Candidate], notes: list[str]) -> None:
    """Rule out what a limit does not allow; one sentence for all the domains in which it is the same."""
    short: dict[tuple[Limit, float], list[Candidate]] = {}
    for row in offered:
        for limit, amount in row.limits:
            if limit.unreadable:
                notes.append(limit.unreadable)
            if suffices(limit, amount) is False:
                short.setdefault((replace(limit, domain=""), amount), []).append(row)
    for (limit, amount), rows in short.items():
        domains = ", ".join(dict.fromkeys(row.domain for row in rows)) if limit.scope == "AD" else ""
        for row in rows:
            if not row.verdict:
                row.rule_out("limit", exhausted(replace(limit, domain=domains), amount))


def _price(row: Candidate, wish: Wish, prices: Prices, notes: list[str]) -> None:
    assert row.offered is not None
    if wish.preemptible:
        row.preemptible = prices.allows_preemptible(row.shape) is not False
        if not row.preemptible:
            notes.append(f"The shape {row.shape} cannot be preemptible: it is launched, and billed, on demand.")
    hourly = prices.hourly(row.shape, wish.ocpus, wish.memory_gb, row.offered.gpus or 0, row.preemptible)
    volume = prices.boot_volume(wish.boot_volume_gb, wish.boot_volume_vpus)
    row.hourly = None if hourly is None or volume is None else hourly + volume


def account(shape: Any) -> str:
    """Which kinds of account can run a shape (the SDK's Shape)."""
    return _GPU_ACCOUNT if shape.gpus else _ACCOUNTS.get(shape.billing_type, "every account that Oracle lets have it")


def _left(limit: Limit) -> str:
    return "?" if limit.available is None else f"{limit.available:g}"


def _as_data(row: Candidate, hours: int) -> dict[str, Any]:
    return {
        "shape": row.shape,
        "region": row.region,
        "availability_domain": row.domain,
        "preemptible": row.preemptible,
        "verdict": row.verdict or "possible",
        "why": row.why,
        "usd_per_hour": None if row.hourly is None else round(row.hourly, 4),
        "usd": None if row.hourly is None else round(row.hourly * hours, 2),
        "capacity": row.capacity,
        "account": account(row.offered) if row.offered else "",
        "image": row.choice.image if row.choice else "",
        "limits": [
            {
                "service": limit.service,
                "name": limit.name,
                "scope": limit.scope,
                "region": limit.region,
                "availability_domain": limit.domain,
                "used": limit.used,
                "available": limit.available,
                "quota": limit.quota,
                "needed": need,
            }
            for limit, need in row.limits
        ],
    }


def plan_of_what_stands(row: Any, boot_volume: Any | None, hours: int) -> Plan:
    """The plan where there is nothing to plan (the SDK's Instance and BootVolume): what it costs."""
    prices = read_prices()
    config = row.shape_config
    ocpus, memory, gpus = (config.ocpus, config.memory_in_gbs, config.gpus or 0) if config else (None, None, 0)
    hourly = prices.hourly(row.shape, ocpus, memory, gpus, row.preemptible_instance_config is not None)
    volume = prices.boot_volume(boot_volume.size_in_gbs, boot_volume.vpus_per_gb) if boot_volume else 0.0
    money = "?" if hourly is None or volume is None else f"{hourly + volume:.2f}"
    line = f"It stands: {row.shape} in {row.availability_domain}, {row.lifecycle_state}, USD {money} an hour in use."
    return Plan([], [], hours, prices, [], [line])
