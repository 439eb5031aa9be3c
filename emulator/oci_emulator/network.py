"""The virtual network: VCNs and all that lives in them, the VNICs and their addresses."""

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import rules
from .api import Call, does
from .catalogue import usage
from .cloud import Resource, stamp
from .errors import ApiError, conflict, incorrect_state, invalid, limit_exceeded, missing, not_found

_NETWORK = "core.VirtualNetworkClient."
_FAMILY = "virtual-network-family"
_TITLES = {
    "vcn": "VCN", "subnet": "Subnet", "internet_gateway": "Internet Gateway", "nat_gateway": "NAT Gateway",
    "route_table": "Route Table", "security_list": "Security List",
    "network_security_group": "Network Security Group", "dhcp_options": "DHCP Options",
}  # fmt: skip
_MAX_GROUP_RULES = 120
_MAX_GROUP_RULES_AT_ONCE = 25

Build = Callable[[Call], dict[str, Any]]
Users = Callable[[Call, Resource], Iterator[Resource]]


@dataclass(frozen=True)
class Kind:
    """How one kind of network part is made, changed, and by what it can still be needed."""

    name: str
    plural: str
    build: Build
    changes: Build
    users: Users
    complete: Callable[[Call, Resource], Any] = lambda call, made: None


def register(kind: Kind) -> None:
    """Register the five operations which all network parts have."""
    does(f"{_NETWORK}create_{kind.name}", f"manage {_FAMILY}")(partial(_create, kind))
    does(f"{_NETWORK}get_{kind.name}", f"read {_FAMILY}")(lambda call: call.target(kind.name))
    does(f"{_NETWORK}list_{kind.plural}", f"inspect {_FAMILY}")(partial(_list, kind))
    does(f"{_NETWORK}update_{kind.name}", f"manage {_FAMILY}")(partial(_update, kind))
    does(f"{_NETWORK}delete_{kind.name}", f"manage {_FAMILY}")(partial(_delete, kind))


def _create(kind: Kind, call: Call) -> Resource:
    call.compartment(call.body["compartmentId"])
    body = kind.build(call)
    call.supply.claim(call.region, "", call.body["compartmentId"], usage(kind.name, body))
    made = _add(call, kind.name, body)
    kind.complete(call, made)
    return made


def _add(call: Call, kind: str, body: dict[str, Any], **inner: Any) -> Resource:
    common = {"displayName": f"{kind.replace('_', '')}{secrets.token_hex(4)}", "freeformTags": {}, "definedTags": {}}
    given = {name: value for name, value in body.items() if value is not None}
    resource = call.cloud.add(kind, call.region, "PROVISIONING", {**common, **given}, **inner)
    call.cloud.move(resource, "PROVISIONING", "AVAILABLE", call.cloud.waiting / 10)
    return resource


def _list(kind: Kind, call: Call) -> list[Resource]:
    if "compartmentId" not in call.query:
        raise missing("compartmentId")
    return call.listing(kind.name)


def _update(kind: Kind, call: Call) -> Resource:
    resource = call.target(kind.name)
    _require_available(resource)
    return call.change(resource, kind.changes(call))


def _delete(kind: Kind, call: Call) -> None:
    resource = call.target(kind.name)
    _require_available(resource)
    if resource.inner.get("default"):
        raise ApiError(409, "Conflict", f"The {_TITLES[kind.name]} {resource.id} is the default of its VCN.")
    for user in kind.users(call, resource):
        raise conflict(_TITLES[kind.name], resource.id, _TITLES.get(user.kind, user.kind.upper()), user.id)
    for child in resource.inner.get("defaults", []):
        call.cloud.move(child, "TERMINATING", "TERMINATED", call.cloud.waiting / 10)
    call.cloud.move(resource, "TERMINATING", "TERMINATED", call.cloud.waiting / 10)


def _require_available(resource: Resource) -> None:
    if resource.state != "AVAILABLE":
        title = _TITLES[resource.kind]
        raise incorrect_state(f"The {title} {resource.id} is in state {resource.state}, not AVAILABLE.")


def _in_vcn(call: Call, kind: str, identity: str, vcn_id: str) -> Resource:
    """A part of the same VCN that can be used; raises 404 or 409."""
    resource = call.usable(kind, identity)
    if resource.body["vcnId"] != vcn_id:
        raise invalid(f"The {_TITLES[kind]} {identity} is not in the VCN {vcn_id}")
    return resource


# VCN


def _build_vcn(call: Call) -> dict[str, Any]:
    body = dict(call.body)
    if (body.get("cidrBlock") is None) == (not body.get("cidrBlocks")):
        raise invalid("Exactly one of cidrBlock and cidrBlocks must be given")
    blocks = body.get("cidrBlocks") or [body["cidrBlock"]]
    networks = [rules.cidr(block, "cidrBlock", longest=30, shortest=16) for block in blocks]
    for index, network in enumerate(networks):
        if any(network.overlaps(other) for other in networks[:index]):
            raise invalid(f"CIDR blocks of a VCN must not overlap: {network}")
    _refuse(body, "isIpv6Enabled", "ipv6PrivateCidrBlocks", "byoipv6CidrDetails", "isOracleGuaAllocationEnabled")
    domain = f"{body['dnsLabel']}.oraclevcn.com" if body.get("dnsLabel") else None
    return {**body, "cidrBlock": blocks[0], "cidrBlocks": blocks, "vcnDomainName": domain}


def _refuse(body: dict[str, Any], *names: str) -> None:
    """Refuse what the emulator does not do, rather than take it and do nothing."""
    for name in names:
        if body.pop(name, None):
            raise invalid(f"The emulator does not know how to honour '{name}'")


def _add_defaults(call: Call, vcn: Resource) -> None:
    """The route table, security list and DHCP options that come and go with a VCN."""
    name = vcn.body["displayName"]
    common = {"vcnId": vcn.id, "compartmentId": vcn.body["compartmentId"]}
    anywhere = {"source": "0.0.0.0/0", "sourceType": "CIDR_BLOCK", "isStateless": False}
    unreachable = {"protocol": "1", "isStateless": False, "sourceType": "CIDR_BLOCK"}
    children: dict[str, dict[str, Any]] = {
        "route_table": {"displayName": f"Default Route Table for {name}", "routeRules": []},
        "security_list": {
            "displayName": f"Default Security List for {name}",
            "ingressSecurityRules": [
                {**anywhere, "protocol": "6", "tcpOptions": {"destinationPortRange": {"min": 22, "max": 22}}},
                {**unreachable, "source": "0.0.0.0/0", "icmpOptions": {"type": 3, "code": 4}},
                {**unreachable, "source": vcn.body["cidrBlock"], "icmpOptions": {"type": 3}},
            ],
            "egressSecurityRules": [
                {"destination": "0.0.0.0/0", "destinationType": "CIDR_BLOCK", "protocol": "all", "isStateless": False}
            ],
        },
        "dhcp_options": {
            "displayName": f"Default DHCP Options for {name}",
            "options": [{"type": "DomainNameServer", "serverType": "VcnLocalPlusInternet", "customDnsServers": []}],
            "domainNameType": "VCN_DOMAIN",
        },
    }
    made = {kind: _add(call, kind, {**common, **body}, default=True) for kind, body in children.items()}
    vcn.inner["defaults"] = list(made.values())
    call.change(
        vcn,
        {
            "defaultRouteTableId": made["route_table"].id,
            "defaultSecurityListId": made["security_list"].id,
            "defaultDhcpOptionsId": made["dhcp_options"].id,
        },
    )


def _users_of_vcn(call: Call, vcn: Resource) -> Iterator[Resource]:
    for kind in _TITLES:
        for part in call.cloud.all(kind, call.region, vcnId=vcn.id):
            if not part.inner.get("default"):
                yield part


# Subnet


def _build_subnet(call: Call) -> dict[str, Any]:
    body = dict(call.body)
    _refuse(body, "ipv6CidrBlock", "ipv6CidrBlocks", "ipv4CidrBlocks")
    vcn = call.usable("vcn", body["vcnId"])
    if not body.get("cidrBlock"):
        raise missing("cidrBlock")
    network = rules.cidr(body["cidrBlock"], "cidrBlock", longest=30)
    if not any(network.subnet_of(rules.cidr(block, "cidrBlock")) for block in vcn.body["cidrBlocks"]):
        raise invalid(f"The requested CIDR {network} is not within the CIDR blocks of the VCN {vcn.id}")
    for other in call.cloud.all("subnet", call.region, vcnId=vcn.id):
        if network.overlaps(rules.cidr(other.body["cidrBlock"], "cidrBlock")):
            raise invalid(
                f"The requested CIDR {network} is invalid: subnet {other.id} with CIDR {other.body['cidrBlock']} "
                "overlaps with this CIDR."
            )
    if body.get("dnsLabel") and not vcn.body.get("dnsLabel"):
        raise invalid("dnsLabel of a subnet needs a VCN with a dnsLabel")
    hidden = {body.get(name) for name in ("prohibitPublicIpOnVnic", "prohibitInternetIngress")} - {None}
    if len(hidden) > 1:
        raise invalid("prohibitInternetIngress and prohibitPublicIpOnVnic must be the same")
    _check_subnet_parts(call, body, vcn.id)
    defaults = {
        "routeTableId": vcn.body["defaultRouteTableId"], "dhcpOptionsId": vcn.body["defaultDhcpOptionsId"],
        "securityListIds": [vcn.body["defaultSecurityListId"]],
    }  # fmt: skip
    return {
        **defaults,
        **{name: value for name, value in body.items() if value is not None},
        "prohibitPublicIpOnVnic": any(hidden),
        "prohibitInternetIngress": any(hidden),
        "virtualRouterIp": str(network[1]),
        "virtualRouterMac": "00:00:17:" + ":".join(secrets.token_hex(1).upper() for _ in range(3)),
        "subnetDomainName": f"{body['dnsLabel']}.{vcn.body['vcnDomainName']}" if body.get("dnsLabel") else None,
    }


def _check_subnet_parts(call: Call, body: dict[str, Any], vcn_id: str) -> None:
    if body.get("routeTableId"):
        _in_vcn(call, "route_table", body["routeTableId"], vcn_id)
    if body.get("dhcpOptionsId"):
        _in_vcn(call, "dhcp_options", body["dhcpOptionsId"], vcn_id)
    for identity in body.get("securityListIds") or []:
        _in_vcn(call, "security_list", identity, vcn_id)
    if len(body.get("securityListIds") or []) > 5:
        raise invalid("A subnet can have at most 5 security lists")


def _change_subnet(call: Call) -> dict[str, Any]:
    body = dict(call.body)
    _refuse(body, "cidrBlock", "ipv6CidrBlock", "ipv6CidrBlocks", "ipv4CidrBlocks")
    _check_subnet_parts(call, body, call.target("subnet").body["vcnId"])
    return body


def _users_of_subnet(call: Call, subnet: Resource) -> Iterator[Resource]:
    return call.cloud.all("vnic", call.region, subnetId=subnet.id)


# Gateways and routes


def _build_gateway(kind: str, limit: str, call: Call) -> dict[str, Any]:
    body = dict(call.body)
    vcn = call.usable("vcn", body["vcnId"])
    _refuse(body, "routeTableId", "publicIpId")
    if any(call.cloud.all(kind, call.region, vcnId=vcn.id)):
        raise limit_exceeded(limit)
    if kind == "nat_gateway":
        return {"blockTraffic": False, **body, "natIp": "198.51.100.9"}
    return body


def _change_gateway(call: Call) -> dict[str, Any]:
    body = dict(call.body)
    _refuse(body, "routeTableId")
    return body


def _users_of_gateway(call: Call, gateway: Resource) -> Iterator[Resource]:
    for table in call.cloud.all("route_table", call.region):
        if any(rule["networkEntityId"] == gateway.id for rule in table.body["routeRules"]):
            yield table


def _check_routes(call: Call, routes: list[dict[str, Any]], vcn_id: str) -> list[dict[str, Any]]:
    seen = set()
    full = []
    for route in routes:
        destination = route.get("destination") or route.get("cidrBlock")
        if not destination:
            raise missing("destination")
        rules.cidr(destination, "destination")
        if destination in seen:
            raise invalid(f"A route table can have one rule for a destination: {destination}")
        seen.add(destination)
        gateway = call.cloud.find("internet_gateway", call.region, route["networkEntityId"])
        gateway = gateway or call.get("nat_gateway", route["networkEntityId"])
        _require_available(gateway)
        if gateway.body["vcnId"] != vcn_id:
            raise invalid(f"The {_TITLES[gateway.kind]} {gateway.id} is not in the VCN {vcn_id}")
        full.append({"destinationType": "CIDR_BLOCK", **route, "destination": destination, "routeType": "STATIC"})
    return full


def _build_route_table(call: Call) -> dict[str, Any]:
    vcn = call.usable("vcn", call.body["vcnId"])
    return {**call.body, "routeRules": _check_routes(call, call.body.get("routeRules") or [], vcn.id)}


def _change_route_table(call: Call) -> dict[str, Any]:
    body = dict(call.body)
    if body.get("routeRules") is not None:
        body["routeRules"] = _check_routes(call, body["routeRules"], call.target("route_table").body["vcnId"])
    return body


def _users_of_route_table(call: Call, table: Resource) -> Iterator[Resource]:
    return call.cloud.all("subnet", call.region, routeTableId=table.id)


# Security


def _check_list_rules(call: Call) -> dict[str, Any]:
    body = dict(call.body)
    for name, direction in (("ingressSecurityRules", "INGRESS"), ("egressSecurityRules", "EGRESS")):
        if body.get(name) is None:
            continue
        for rule in body[name]:
            rules.security_rule(rule, direction)
        here = "source" if direction == "INGRESS" else "destination"
        body[name] = [{"isStateless": False, f"{here}Type": "CIDR_BLOCK", **rule} for rule in body[name]]
    return body


def _build_security_list(call: Call) -> dict[str, Any]:
    call.usable("vcn", call.body["vcnId"])
    return _check_list_rules(call)


def _users_of_security_list(call: Call, found: Resource) -> Iterator[Resource]:
    return (subnet for subnet in call.cloud.all("subnet", call.region) if found.id in subnet.body["securityListIds"])


def _build_group(call: Call) -> dict[str, Any]:
    call.usable("vcn", call.body["vcnId"])
    return call.body


def _users_of_group(call: Call, group: Resource) -> Iterator[Resource]:
    return (vnic for vnic in call.cloud.all("vnic", call.region) if group.id in vnic.body["nsgIds"])


def _group_rules(group: Resource) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = group.inner.setdefault("rules", [])
    return found


def _new_rule(call: Call, rule: dict[str, Any], identity: str) -> dict[str, Any]:
    rules.security_rule(rule, rule["direction"])
    here = "source" if rule["direction"] == "INGRESS" else "destination"
    if not rule.get(f"{here}Type"):
        raise missing(f"{here}Type")
    if rule[f"{here}Type"] == "NETWORK_SECURITY_GROUP":
        call.get("network_security_group", rule[here])
    return {"isStateless": False, **rule, "id": identity, "isValid": True, "timeCreated": stamp(time.time())}


@does(f"{_NETWORK}list_network_security_group_security_rules", f"inspect {_FAMILY}")
def _list_rules(call: Call) -> list[dict[str, Any]]:
    found = _group_rules(call.target("network_security_group"))
    direction = call.query.get("direction")
    return [rule for rule in found if direction in (None, rule["direction"])]


@does(f"{_NETWORK}add_network_security_group_security_rules", f"manage {_FAMILY}")
def _add_rules(call: Call) -> dict[str, Any]:
    group = call.target("network_security_group")
    _require_available(group)
    given = call.body.get("securityRules") or []
    if len(given) > _MAX_GROUP_RULES_AT_ONCE or len(given) + len(_group_rules(group)) > _MAX_GROUP_RULES:
        raise invalid(f"At most {_MAX_GROUP_RULES_AT_ONCE} rules at once and {_MAX_GROUP_RULES} in all")
    added = [_new_rule(call, rule, secrets.token_hex(3).upper()) for rule in given]
    _group_rules(group).extend(added)
    call.cloud.touch(group)
    return {"securityRules": added}


@does(f"{_NETWORK}update_network_security_group_security_rules", f"manage {_FAMILY}")
def _update_rules(call: Call) -> dict[str, Any]:
    group = call.target("network_security_group")
    found = {rule["id"]: index for index, rule in enumerate(_group_rules(group))}
    if any(rule["id"] not in found for rule in call.body.get("securityRules") or []):
        raise not_found()
    updated = [_new_rule(call, rule, rule["id"]) for rule in call.body.get("securityRules") or []]
    for rule in updated:
        _group_rules(group)[found[rule["id"]]] = rule
    call.cloud.touch(group)
    return {"securityRules": updated}


@does(f"{_NETWORK}remove_network_security_group_security_rules", f"manage {_FAMILY}")
def _remove_rules(call: Call) -> None:
    group = call.target("network_security_group")
    unwanted = set(call.body.get("securityRuleIds") or [])
    if unwanted - {rule["id"] for rule in _group_rules(group)}:
        raise not_found()
    group.inner["rules"] = [rule for rule in _group_rules(group) if rule["id"] not in unwanted]
    call.cloud.touch(group)


# VNICs and addresses


@does(f"{_NETWORK}get_vnic", f"read {_FAMILY}")
def _get_vnic(call: Call) -> Resource:
    return call.target("vnic")


@does(f"{_NETWORK}update_vnic", f"use {_FAMILY}")
def _update_vnic(call: Call) -> Resource:
    vnic = call.target("vnic")
    if vnic.state != "AVAILABLE":
        raise incorrect_state(f"The VNIC {vnic.id} is in state {vnic.state}, not AVAILABLE.")
    body = dict(call.body)
    _refuse(body, "hostnameLabel", "routeTableId")
    subnet = call.get("subnet", vnic.body["subnetId"])
    for identity in body.get("nsgIds") or []:
        _in_vcn(call, "network_security_group", identity, subnet.body["vcnId"])
    return call.change(vnic, body)


def plan_vnic(call: Call, details: dict[str, Any], domain: str) -> tuple[dict[str, Any], bool]:
    """Check the CreateVnicDetails of a launch; return the VNIC's body to be, and whether it gets a public address."""
    details = dict(details)
    _refuse(details, "ipv6AddressIpv6SubnetCidrPairDetails", "assignIpv6Ip", "vlanId", "subnetCidr", "routeTableId")
    if not details.get("subnetId"):
        raise missing("createVnicDetails.subnetId")
    subnet = call.usable("subnet", details["subnetId"])
    if subnet.body.get("availabilityDomain") not in (None, domain):
        raise invalid(f"The subnet {subnet.id} is not in the availability domain {domain}")
    private_only = subnet.body["prohibitPublicIpOnVnic"]
    public = details.get("assignPublicIp")
    if public and private_only:
        raise invalid(f"assignPublicIp cannot be true: the subnet {subnet.id} prohibits public IPs on its VNICs")
    groups = details.get("nsgIds") or []
    if len(groups) > 5:
        raise invalid("A VNIC can be in at most 5 network security groups")
    for identity in groups:
        _in_vcn(call, "network_security_group", identity, subnet.body["vcnId"])
    if details.get("hostnameLabel") and not subnet.body.get("dnsLabel"):
        raise invalid("hostnameLabel needs a subnet with a dnsLabel")
    body = {
        "availabilityDomain": domain, "compartmentId": call.body["compartmentId"], "subnetId": subnet.id,
        "displayName": details.get("displayName"), "hostnameLabel": details.get("hostnameLabel"),
        "freeformTags": details.get("freeformTags") or {}, "definedTags": {}, "nsgIds": groups, "isPrimary": True,
        "skipSourceDestCheck": bool(details.get("skipSourceDestCheck")),
        "macAddress": "02:00:17:" + ":".join(secrets.token_hex(1).upper() for _ in range(3)),
        "privateIp": _private_address(call, subnet, details.get("privateIp")),
    }  # fmt: skip
    return body, not private_only if public is None else public


def _private_address(call: Call, subnet: Resource, wanted: str | None) -> str:
    taken = {vnic.body["privateIp"] for vnic in call.cloud.all("vnic", call.region, subnetId=subnet.id)}
    network = rules.cidr(subnet.body["cidrBlock"], "cidrBlock")
    free = (str(network[index]) for index in range(2, network.num_addresses - 1))  # the cloud keeps the first two
    if wanted:
        if wanted in taken or wanted not in set(free):
            raise invalid(f"The private IP {wanted} cannot be had in {network}")
        return wanted
    for address in free:
        if address not in taken:
            return address
    raise ApiError(400, "LimitExceeded", f"The subnet {subnet.id} has no free address left.")


@does(f"{_NETWORK}list_public_ips", f"inspect {_FAMILY}")
def _list_public_ips(call: Call) -> list[Resource]:
    return call.listing("public_ip")


@does(f"{_NETWORK}get_public_ip", f"read {_FAMILY}")
def _get_public_ip(call: Call) -> Resource:
    return call.target("public_ip")


def _as_given(call: Call) -> dict[str, Any]:
    return call.body


def _nobody(call: Call, resource: Resource) -> Iterator[Resource]:
    return iter(())


register(Kind("subnet", "subnets", _build_subnet, _change_subnet, _users_of_subnet))
register(
    Kind(
        "internet_gateway",
        "internet_gateways",
        partial(_build_gateway, "internet_gateway", "internet-gateway-count"),
        _change_gateway,
        _users_of_gateway,
    )
)
register(
    Kind(
        "nat_gateway",
        "nat_gateways",
        partial(_build_gateway, "nat_gateway", "nat-gateway-count"),
        _change_gateway,
        _users_of_gateway,
    )
)
register(Kind("route_table", "route_tables", _build_route_table, _change_route_table, _users_of_route_table))
register(Kind("security_list", "security_lists", _build_security_list, _check_list_rules, _users_of_security_list))
register(Kind("network_security_group", "network_security_groups", _build_group, _as_given, _users_of_group))
register(Kind("vcn", "vcns", _build_vcn, _as_given, _users_of_vcn, _add_defaults))
_DHCP = Kind("dhcp_options", "dhcp_options", _as_given, _as_given, _nobody)
does(f"{_NETWORK}get_dhcp_options", f"read {_FAMILY}")(lambda call: call.target("dhcp_options"))
does(f"{_NETWORK}list_dhcp_options", f"inspect {_FAMILY}")(partial(_list, _DHCP))
