# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""A stack on Oracle Cloud, one instance and its network: found by tags, made part by part, removed to nothing.

Each change goes the same way: intent into the ledger, request, result into the ledger. What is shown as the
difference is what is done: `before` and `after` differ exactly where something was changed, or would be.
"""

from __future__ import annotations

import ipaddress
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from ansible_collections.faceswap.ops.plugins.module_utils import stack_tags
from ansible_collections.faceswap.ops.plugins.module_utils.oci_client import Cloud, OciError, as_dict, models
from ansible_collections.faceswap.ops.plugins.module_utils.run_ledger import LISTED_AFTER_S, Ledger

ANYWHERE = "0.0.0.0/0"
DEAD = ("TERMINATED", "TERMINATING", "FAULTY")  # lifecycle states in which a thing is no longer there to use
GONE = ("TERMINATED",)  # and in which nothing is left of it
_TCP, _ICMP = "6", "1"  # protocol numbers (IANA)
_CONFLICTS_END_S = 300  # a deletion that is refused for longer than this is held by something that stays


@dataclass(frozen=True)
class Kind:
    """A kind of resource: how the SDK's methods for it are named, and which client has them."""

    name: str
    plural: str
    service: str  # an attribute of Cloud


KINDS = {
    kind.name: kind
    for kind in (  # in the order in which they can be deleted
        Kind("instance", "instances", "compute"),
        Kind("boot_volume", "boot_volumes", "storage"),
        Kind("subnet", "subnets", "network"),
        Kind("route_table", "route_tables", "network"),
        Kind("network_security_group", "network_security_groups", "network"),
        Kind("security_list", "security_lists", "network"),
        Kind("internet_gateway", "internet_gateways", "network"),
        Kind("nat_gateway", "nat_gateways", "network"),
        Kind("vcn", "vcns", "network"),
    )
}

NETWORK = tuple(kind for kind in KINDS if KINDS[kind].service == "network")


@dataclass
class Network:
    """What a network shall be. CIDRs as text; `vcn_id` names a VCN that is there already and stays."""

    public: bool
    vcn_cidr: str
    subnet_cidr: str
    vcn_id: str | None
    ssh_sources: Sequence[str]


@dataclass
class Stack:
    """The stack `name` in one region and compartment. `tags` are put on whatever is made."""

    cloud: Cloud
    ledger: Ledger
    region: str
    compartment: str
    name: str
    tags: dict[str, str]
    check_mode: bool
    deadline: float  # monotonic time after which waiting is given up
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    found: dict[str, list[Any]] = field(default_factory=dict)
    lost: list[Any] = field(default_factory=list)

    # -- finding ---------------------------------------------------------------------------------------

    def look(self, only: Iterable[str] = KINDS) -> None:
        """Fill `found` with what is the stack's and is not dead, by kind; and note it in the ledger.

        The stack's is what carries its tag, and what the ledger knows: Oracle may not list yet what was just made.
        `lost` becomes the instances that stand in the ledger and are dead: nothing of ours ended them.
        """
        for kind in only:  # one after the other: nine answers by one connection are sooner there than by six new ones
            listed = self._list(kind)
            known = {line["id"] for line in self._standing() if line["kind"] == kind}
            unlisted = {ocid: self._get(kind, ocid) for ocid in known - {row.id for row in listed}}
            gone = {row.id for row in listed if row.lifecycle_state in GONE}
            for ocid in known & (gone | {ocid for ocid, row in unlisted.items() if row is None}):
                self.ledger.gone(ocid)
            everything = [*listed, *(row for row in unlisted.values() if row is not None)]
            rows = [row for row in everything if row.lifecycle_state not in DEAD]
            self.found[kind] = sorted(rows, key=lambda row: row.time_created)
            for row in rows:
                self.ledger.made(kind, self.region, self.compartment, row.id)
            if kind == "instance":
                self.lost = [row for row in listed if row.id in known and row.lifecycle_state in DEAD]

    def _standing(self) -> list[dict[str, Any]]:
        place = (self.region, self.compartment)
        return [line for line in self.ledger.standing() if (line["region"], line["compartment"]) == place]

    def elsewhere(self, region: str) -> list[Any]:
        """Instances of the same name in another region."""
        rows = self.cloud.listing(self.cloud.compute(region).list_instances, self.compartment)
        ours = [row for row in rows if (row.freeform_tags or {}).get(stack_tags.STACK) == self.name]
        return [row for row in ours if row.lifecycle_state not in DEAD]

    def others(self) -> set[str]:
        """The names of the other stacks that have an instance here."""
        rows = self.cloud.listing(self.cloud.compute(self.region).list_instances, self.compartment)
        names = {(row.freeform_tags or {}).get(stack_tags.STACK) for row in rows if row.lifecycle_state not in DEAD}
        return {name for name in names if name and name != self.name}

    def known_tags(self) -> dict[str, str]:
        """The tags of the life that is found: the instance's, else those of any part; empty when none is."""
        for kind in KINDS:
            for row in self.found.get(kind, []):
                return dict(row.freeform_tags)
        return {}

    def instance(self) -> Any | None:
        """The stack's instance; OciError when there are two, for neither is then the right one to use."""
        rows = self.found["instance"]
        if len(rows) > 1:
            raise OciError(
                f"{len(rows)} instances carry the tag {stack_tags.STACK}={self.name} "
                f"({', '.join(row.id for row in rows)}): terminate all but one of them, for each one bills."
            )
        return rows[0] if rows else None

    def keep_network(self, wanted: Network) -> list[str]:
        """Put what stands, and cannot be changed, in the place of what is wanted; say each difference."""
        asked = (wanted.public, wanted.vcn_cidr, wanted.subnet_cidr, wanted.vcn_id)
        parts = [row for kind in KINDS if kind not in ("vcn", "instance", "boot_volume") for row in self.found[kind]]
        if self.found["vcn"]:
            wanted.vcn_cidr, wanted.vcn_id = self.found["vcn"][0].cidr_blocks[0], None
        elif parts:
            wanted.vcn_id = parts[0].vcn_id
        if self.found["subnet"]:
            subnet = self.found["subnet"][0]
            wanted.public, wanted.subnet_cidr = not subnet.prohibit_public_ip_on_vnic, subnet.cidr_block
        elif self.found["nat_gateway"] or self.found["internet_gateway"]:
            wanted.public = bool(self.found["internet_gateway"])
        stands = (wanted.public, wanted.vcn_cidr, wanted.subnet_cidr, wanted.vcn_id)
        names = ("a public network", "vcn_cidr", "subnet_cidr", "vcn_id")
        return [
            f"The network of {self.name} has {name} {there}, not {ask}: it is left as it is. "
            "Destroy the stack first to have it anew."
            for name, there, ask in zip(names, stands, asked, strict=True)
            if there != ask
        ]

    def _list(self, kind: str) -> list[Any]:
        what = KINDS[kind]
        method = getattr(getattr(self.cloud, what.service)(self.region), f"list_{what.plural}")
        rows = self.cloud.listing(method, compartment_id=self.compartment)
        return [row for row in rows if (row.freeform_tags or {}).get(stack_tags.STACK) == self.name]

    # -- making ----------------------------------------------------------------------------------------

    def make_network(self, wanted: Network) -> tuple[str | None, str | None]:
        """Bring the network to what is wanted; return the OCIDs of subnet and security group.

        None stands for what check mode has not made.
        """
        if wanted.vcn_id:
            vcn = self.cloud.call(self.cloud.network(self.region).get_vcn, wanted.vcn_id)
            lists = [self._id(self._part("security_list", lambda: _no_ingress(vcn.id), "no ingress"))]
        else:
            vcn = self._part("vcn", lambda: models.CreateVcnDetails(cidr_blocks=[wanted.vcn_cidr]), wanted.vcn_cidr)
            lists = [self._strip(vcn)]
        gateway = self._gateway(vcn, wanted)
        table = self._part(
            "route_table",
            lambda: models.CreateRouteTableDetails(vcn_id=vcn.id, route_rules=_routes(gateway.id)),
            f"{ANYWHERE} by the {'internet' if wanted.public else 'NAT'} gateway",
        )
        self._route(table, gateway)
        group = self._part(
            "network_security_group",
            lambda: models.CreateNetworkSecurityGroupDetails(vcn_id=vcn.id),
            "of the instance",
        )
        self._open_ssh(group, wanted.ssh_sources)
        subnet = self._part(
            "subnet",
            lambda: models.CreateSubnetDetails(
                vcn_id=vcn.id,
                cidr_block=wanted.subnet_cidr,
                prohibit_public_ip_on_vnic=not wanted.public,
                route_table_id=table.id,
                security_list_ids=lists,
            ),
            f"{wanted.subnet_cidr}, {'public' if wanted.public else 'private'}",
        )
        return self._id(subnet), self._id(group)

    def missing(self, wanted: Network) -> list[str]:
        """The kinds that `make_network` would make."""
        gateway = "internet_gateway" if wanted.public else "nat_gateway"
        kinds = [
            "security_list" if wanted.vcn_id else "vcn",
            gateway,
            "route_table",
            "network_security_group",
            "subnet",
        ]
        return [kind for kind in kinds if not self.found[kind]]

    def create(self, kind: str, method: Callable[..., Any], details: Any, what: str = "") -> Any:
        """Ask for something that may not be made twice: noted before and after, with a retry token of its own.

        `what` goes into the ledger, for the next run to find the request again if this one is cut off.
        """
        for last in (False, True):
            token = self.ledger.intend(kind, self.region, self.compartment, as_dict(details), what)
            try:
                made = self.cloud.call(method, details, opc_retry_token=token)
            except OciError as error:
                if error.unsure and (row := self._listed(kind)):
                    return row
                if not error.unknown:
                    self.ledger.failed(kind, f"{error.status} {error.code}")
                # The token of a killed run, for something that was made and deleted since: ask anew.
                if error.code != "InvalidatedRetryToken" or last:
                    raise
            else:
                self.ledger.made(kind, self.region, self.compartment, made.id)
                return made
        raise AssertionError("unreachable")

    def _listed(self, kind: str) -> Any | None:
        """What an unanswered try has made after all, although the next try of the same request was refused."""
        end = time.monotonic() + LISTED_AFTER_S
        while True:
            self.look([kind])
            if self.found[kind]:
                return self.found[kind][0]
            if time.monotonic() >= end:
                return None
            time.sleep(0.5)

    def act(self, ocid: str, action: str) -> None:
        """Start or stop the instance; it is no fault if that is under way already."""
        client = self.cloud.compute(self.region)
        try:
            self.cloud.call(client.instance_action, ocid, action, opc_retry_token=uuid.uuid4().hex)
        except OciError as error:
            going = ("STARTING", "RUNNING") if action == "START" else ("STOPPING", "STOPPED")
            if not error.conflict or self.cloud.call(client.get_instance, ocid).lifecycle_state not in going:
                raise

    def wait(self, kind: str, ocid: str, wanted: Sequence[str], never: Sequence[str] = DEAD) -> Any:
        """Poll a resource until its lifecycle state is a wanted one, and return it. Raises OciError.

        A state of `never` ends the wait at once.
        """
        what = KINDS[kind]
        method = getattr(getattr(self.cloud, what.service)(self.region), f"get_{kind}")
        pause = 0.1
        while True:
            row = self.cloud.call(method, ocid)
            if row.lifecycle_state in wanted:
                return row
            if row.lifecycle_state in never:
                raise OciError(f"The {words(kind)} {ocid} became {row.lifecycle_state} instead of {wanted[0]}.")
            if time.monotonic() >= self.deadline:
                raise OciError(
                    f"The {words(kind)} {ocid} is still {row.lifecycle_state}, not {wanted[0]}: run the same again "
                    "to go on waiting (wait_s says for how long), or destroy it."
                )
            time.sleep(pause)
            pause = min(1.5 * pause, 5.0)

    def launch_fault(self, ocid: str) -> str | None:
        """Why Oracle could not do the launch that it had accepted; None while nothing is known to be wrong."""
        client = self.cloud.work_requests(self.region)
        try:
            rows = self.cloud.listing(client.list_work_requests, self.compartment, resource_id=ocid)
            failed = [
                row for row in rows if row.status in ("FAILED", "CANCELED")
            ]  # a new instance has only its launch
            if not failed:
                return None
            faults = self.cloud.listing(client.list_work_request_errors, failed[0].id)
        except OciError as error:
            if error.not_found:  # who may not see work requests is told of the instance's state alone
                return None
            raise
        return "; ".join(" ".join(fault.message.split()).rstrip(".") for fault in faults) or "no reason given"

    def discard(self, row: Any) -> None:
        """Remove an instance whose launch failed, with its boot volume, so that it cannot bill or come back."""
        volumes = self.boot_volumes(row)
        self._delete("instance", row.id)
        for volume in volumes:
            self._delete("boot_volume", volume.id)
        self.found["instance"] = []

    def show(self, name: str, before: Any, after: Any) -> bool:
        """Note a part of the difference; return whether it is to be changed now (never in check mode)."""
        if before is not None:
            self.before[name] = before
        if after is not None:
            self.after[name] = after
        return bool(before != after) and not self.check_mode

    def _part(self, kind: str, details: Callable[[], Any], shown: str) -> Any:
        """A part of the network: the one that is there, or a new one; None in check mode for one that is not."""
        if rows := self.found[kind]:
            self.show(kind, shown, shown)
            row = rows[0]
            return row if row.lifecycle_state == "AVAILABLE" else self.wait(kind, row.id, ["AVAILABLE"])
        if not self.show(kind, None, shown):
            return None
        request = details()
        request.compartment_id = self.compartment
        request.display_name = self.name
        request.freeform_tags = self.tags
        made = self.create(kind, getattr(self.cloud.network(self.region), f"create_{kind}"), request)
        self.found[kind] = [made]
        return made if made.lifecycle_state == "AVAILABLE" else self.wait(kind, made.id, ["AVAILABLE"])

    def _gateway(self, vcn: Any, wanted: Network) -> Any:
        if not wanted.public:
            return self._part("nat_gateway", lambda: models.CreateNatGatewayDetails(vcn_id=vcn.id), "enabled")
        if wanted.vcn_id and not self.found["internet_gateway"]:
            # A VCN has one internet gateway at most: one that is there is used, and stays when we go.
            client = self.cloud.network(self.region)
            rows = self.cloud.listing(client.list_internet_gateways, vcn.compartment_id, vcn_id=vcn.id)
            if rows:
                return rows[0]
        return self._part(
            "internet_gateway",
            lambda: models.CreateInternetGatewayDetails(vcn_id=vcn.id, is_enabled=True),
            "enabled",
        )

    def _strip(self, vcn: Any) -> str | None:
        """Take every way in out of our VCN's default security list; return its OCID."""
        client = self.cloud.network(self.region)
        there = None
        if "vcn" in self.before:
            rules = self.cloud.call(client.get_security_list, vcn.default_security_list_id).ingress_security_rules
            there = [_rule_text(rule) for rule in rules]
        if self.show("default_security_list", there, []):
            details = models.UpdateSecurityListDetails(ingress_security_rules=[])
            self.cloud.call(client.update_security_list, vcn.default_security_list_id, details)
        return vcn.default_security_list_id if vcn else None

    def _route(self, table: Any | None, gateway: Any | None) -> None:
        if table is None or gateway is None:
            return
        there = [(rule.destination, rule.network_entity_id) for rule in table.route_rules]
        wanted = [(ANYWHERE, gateway.id)]
        if there != wanted and self.show("routes", [" by ".join(pair) for pair in there], [" by ".join(wanted[0])]):
            details = models.UpdateRouteTableDetails(route_rules=_routes(gateway.id))
            self.cloud.call(self.cloud.network(self.region).update_route_table, table.id, details)

    def _open_ssh(self, group: Any, sources: Sequence[str]) -> None:
        """Let the sources reach port 22 of the security group's members, and nothing else from anywhere."""
        wanted = {_rule_text(rule): rule for rule in _security_rules(sources)}
        client = self.cloud.network(self.region)
        rows = []
        if "network_security_group" in self.before:
            rows = self.cloud.listing(client.list_network_security_group_security_rules, group.id)
        there: dict[str, list[str]] = {}
        for row in rows:
            there.setdefault(_rule_text(row), []).append(row.id)
        texts = sorted(text for text, ids in there.items() for _ in ids)
        if not self.show("security_rules", texts or None, sorted(wanted)):
            return
        extra = [ocid for text, ids in there.items() for ocid in (ids[1:] if text in wanted else ids)]
        missing = [rule for text, rule in wanted.items() if text not in there]
        for some in _chunks(missing):
            add = models.AddNetworkSecurityGroupSecurityRulesDetails(security_rules=some)
            self.cloud.call(client.add_network_security_group_security_rules, group.id, add)
        for some in _chunks(extra):
            remove = models.RemoveNetworkSecurityGroupSecurityRulesDetails(security_rule_ids=some)
            self.cloud.call(client.remove_network_security_group_security_rules, group.id, remove)

    @staticmethod
    def _id(row: Any | None) -> str | None:
        return row.id if row is not None else None

    # -- removing --------------------------------------------------------------------------------------

    def remains(self, only: Iterable[str] = KINDS) -> list[dict[str, Any]]:
        """Everything of the stack that exists here now: by tag, and by the ledger whether tagged or not.

        Rows of kind, id, region, name and tags, in the order in which they can be deleted. Something that is being
        deleted still exists.
        """
        kinds = list(only)
        rows = {
            kind: [row for row in listed if row.lifecycle_state not in GONE]
            for kind, listed in zip(kinds, self.cloud.at_once(self._list, kinds), strict=True)
        }
        seen = {row.id for found in rows.values() for row in found}
        if "boot_volume" in rows:
            for instance in self._list("instance"):  # dead ones too: their volume may have been kept
                for row in self.boot_volumes(instance):
                    if row.id not in seen:
                        rows["boot_volume"].append(row)
                        seen.add(row.id)
            rows["vnic"] = []  # it goes with its instance
        for line in self._standing():
            if line["kind"] not in rows or line["id"] in seen:
                continue
            look_up = self._vnic if line["kind"] == "vnic" else partial(self._get, line["kind"])
            if row := look_up(line["id"]):
                rows[line["kind"]].append(row)
            else:
                self.ledger.gone(line["id"])
        return [
            {
                "kind": kind,
                "id": row.id,
                "region": self.region,
                "name": row.display_name or "",
                "tags": row.freeform_tags or {},
            }
            for kind, found in rows.items()
            for row in found
        ]

    def remove(self, only: Iterable[str] = KINDS) -> None:
        """Delete all that remains, again where the order of deletion makes Oracle refuse. Raises OciError."""
        rows = self.remains(only)
        ours = {row["id"] for row in rows}
        for row in rows:
            if row["kind"] == "vcn":
                self._foreign_subnets(row["id"], ours)
        for row in rows:
            if row["kind"] != "vnic":  # a VNIC goes with its instance
                self._delete(row["kind"], row["id"])

    def _delete(self, kind: str, ocid: str) -> None:
        what = KINDS[kind]
        client = getattr(self.cloud, what.service)(self.region)
        method = getattr(client, "terminate_instance" if kind == "instance" else f"delete_{kind}")
        options = {"preserve_boot_volume": False} if kind == "instance" else {}
        end = min(self.deadline, time.monotonic() + _CONFLICTS_END_S)
        pause = 0.1
        while True:
            row = self._get(kind, ocid)
            if row is None:
                self.ledger.gone(ocid)
                return
            refusal = None
            if row.lifecycle_state != "TERMINATING":
                try:
                    self.cloud.call(method, ocid, **options)
                    continue
                except OciError as error:
                    if not error.conflict and not error.not_found:
                        raise
                    if error.not_found and self._get(kind, ocid) is not None:
                        raise  # it is there, so the policy is what is missing
                    refusal = error
            if time.monotonic() >= (end if refusal else self.deadline):
                raise OciError(f"The {words(kind)} {ocid} cannot be deleted: {refusal or 'it is still TERMINATING.'}")
            time.sleep(pause)
            pause = min(1.5 * pause, 5.0)

    def _get(self, kind: str, ocid: str) -> Any | None:
        """The resource, None where nothing is left of it."""
        what = KINDS[kind]
        try:
            row = self.cloud.call(getattr(getattr(self.cloud, what.service)(self.region), f"get_{kind}"), ocid)
        except OciError as error:
            if error.not_found:
                return None
            raise
        return None if row.lifecycle_state in GONE else row

    def _vnic(self, ocid: str) -> Any | None:
        try:
            row = self.cloud.call(self.cloud.network(self.region).get_vnic, ocid)
        except OciError as error:
            if error.not_found:
                return None
            raise
        return None if row.lifecycle_state in GONE else row

    def boot_volumes(self, instance: Any) -> list[Any]:
        """The boot volume that the launch of an instance made, which it leaves untagged.

        One that someone has put into its place is not ours: the launch's has the instance's name, and its age.
        """
        attachments = self.cloud.listing(
            self.cloud.compute(self.region).list_boot_volume_attachments,
            instance.availability_domain,
            self.compartment,
            instance_id=instance.id,
        )
        rows = [self._get("boot_volume", attachment.boot_volume_id) for attachment in attachments]
        return [
            row
            for row in rows
            if row is not None
            and row.display_name == f"{instance.display_name} (Boot Volume)"
            and row.time_created >= instance.time_created - timedelta(minutes=1)
        ]

    def _foreign_subnets(self, vcn_id: str, ours: set[str]) -> None:
        client = self.cloud.network(self.region)
        rows = self.cloud.listing(client.list_subnets, self.compartment, vcn_id=vcn_id)
        foreign = [row for row in rows if row.id not in ours and row.lifecycle_state not in DEAD]
        if foreign:
            raise OciError(
                f"The VCN {vcn_id} of this stack holds the subnet {foreign[0].display_name} ({foreign[0].id}), which "
                "is not of this stack: move or delete that first; nothing was removed."
            )


def check_network(wanted: Network) -> None:
    """Refuse CIDRs which cannot be a VCN with a subnet in it, and open doors. Raises OciError."""
    nets = {}
    for name in ("vcn_cidr", "subnet_cidr"):
        text = getattr(wanted, name)
        try:
            nets[name] = ipaddress.IPv4Network(text)
        except ValueError as error:
            raise OciError(f"{name} {text} is not an IPv4 network ({error}): write it as 10.20.0.0/16.") from None
        if not 16 <= nets[name].prefixlen <= 30:
            raise OciError(f"{name} {text} is a /{nets[name].prefixlen}, and Oracle takes /16 to /30: choose one.")
        setattr(wanted, name, str(nets[name]))  # in the one form that Oracle takes
    if not wanted.vcn_id and not nets["subnet_cidr"].subnet_of(nets["vcn_cidr"]):
        raise OciError(
            f"subnet_cidr {wanted.subnet_cidr} is not within vcn_cidr {wanted.vcn_cidr}: choose one that is."
        )
    sources = []
    for text in wanted.ssh_sources:
        try:
            source = ipaddress.IPv4Network(text)
        except ValueError as error:
            raise OciError(f"ssh_sources has {text}, which is no IPv4 network ({error}).") from None
        if source.prefixlen == 0:
            raise OciError(f"ssh_sources has {text}, which is everyone: name the addresses that may enter.")
        sources.append(str(source))
    wanted.ssh_sources = sources


def check_overlap(stack: Stack, wanted: Network) -> None:
    """Refuse a subnet that the existing VCN has no room for. Raises OciError."""
    if not wanted.vcn_id or stack.found["subnet"]:
        return
    client = stack.cloud.network(stack.region)
    subnet = ipaddress.IPv4Network(wanted.subnet_cidr)
    vcn = stack.cloud.call(client.get_vcn, wanted.vcn_id)
    if not any(subnet.subnet_of(ipaddress.IPv4Network(block)) for block in vcn.cidr_blocks):
        raise OciError(
            f"subnet_cidr {wanted.subnet_cidr} is not within the VCN {vcn.display_name} "
            f"({', '.join(vcn.cidr_blocks)}): choose one that is."
        )
    for row in stack.cloud.listing(client.list_subnets, vcn.compartment_id, vcn_id=vcn.id):
        if row.lifecycle_state not in DEAD and subnet.overlaps(ipaddress.IPv4Network(row.cidr_block)):
            raise OciError(
                f"subnet_cidr {wanted.subnet_cidr} overlaps with the subnet {row.display_name} ({row.cidr_block}) of "
                f"the VCN {vcn.display_name}: choose another."
            )


def _chunks(rows: Sequence[Any]) -> list[Sequence[Any]]:
    """In parts that Oracle takes at once (API reference, 'AddSecurityRules': 25)."""
    return [rows[start : start + 25] for start in range(0, len(rows), 25)]


def _no_ingress(vcn_id: str) -> Any:
    egress = models.EgressSecurityRule(destination=ANYWHERE, protocol="all")
    return models.CreateSecurityListDetails(vcn_id=vcn_id, ingress_security_rules=[], egress_security_rules=[egress])


def _routes(gateway_id: str) -> list[Any]:
    return [models.RouteRule(destination=ANYWHERE, destination_type="CIDR_BLOCK", network_entity_id=gateway_id)]


def _security_rules(sources: Sequence[str]) -> list[Any]:
    port = models.PortRange(min=22, max=22)
    rules = [
        models.AddSecurityRuleDetails(
            direction="INGRESS",
            protocol=_TCP,
            source=source,
            source_type="CIDR_BLOCK",
            tcp_options=models.TcpOptions(destination_port_range=port),
            description="SSH from the controller",
        )
        for source in sorted(set(sources))
    ]
    # 'Fragmentation needed' is an answer to what the instance sends, and opens no port: without it long
    # transfers hang on networks with a small MTU (Oracle's documentation, 'Hanging Connection').
    return [
        *rules,
        models.AddSecurityRuleDetails(
            direction="INGRESS",
            protocol=_ICMP,
            source=ANYWHERE,
            source_type="CIDR_BLOCK",
            icmp_options=models.IcmpOptions(type=3, code=4),
            description="Path MTU discovery",
        ),
    ]


def _rule_text(rule: Any) -> str:
    """What a security rule lets through, in words that are the same for every form in which Oracle gives it."""
    direction = getattr(rule, "direction", None) or "INGRESS"
    peer = rule.source if direction == "INGRESS" else rule.destination
    what = {_TCP: "tcp", _ICMP: "icmp", "17": "udp"}.get(rule.protocol, rule.protocol)
    if rule.tcp_options and rule.tcp_options.destination_port_range:
        ports = rule.tcp_options.destination_port_range
        what = f"{ports.min}/tcp" if ports.min == ports.max else f"{ports.min}-{ports.max}/tcp"
    elif rule.icmp_options:
        code = rule.icmp_options.code
        what = f"icmp {rule.icmp_options.type}" + (f"/{code}" if code is not None else "")
    return f"{what} {'from' if direction == 'INGRESS' else 'to'} {peer}"


def words(kind: str) -> str:
    """A kind as people say it."""
    return "VCN" if kind == "vcn" else kind.replace("_", " ")
