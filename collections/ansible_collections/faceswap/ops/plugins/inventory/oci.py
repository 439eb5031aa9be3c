# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Inventory of the instances that `faceswap.ops.oci_instance` made, found by tag, their host keys pinned."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible_collections.faceswap.ops.plugins.module_utils import pin_file, stack_tags

DOCUMENTATION = r"""
name: oci
short_description: Instances of faceswap-oci on Oracle Cloud
version_added: 0.1.0
description:
  - Finds the instances that M(faceswap.ops.oci_instance) made, by their tags, in all wanted compartments and regions.
    Nothing else that runs in the tenancy is listed.
  - Each host gets its user, its address and a host key that is pinned. The public half of that key is a tag of the
    instance, which comes over the signed and encrypted connection to the cloud; so a controller that never saw the
    instance trusts nothing at its first connection either. An instance whose tags do not say its key is left out.
  - The host's name is the stack's. When two instances have the same, the later one gets its region (or its run)
    behind a dot.
  - Hosts that do not run are in the group C(oci_stopped) alone.
author:
  - The faceswap-oci maintainers
extends_documentation_fragment:
  - faceswap.ops.oci
  - faceswap.ops.oci.plugin
  - constructed
  - inventory_cache
options:
  plugin:
    description: Marks the file as one for this plugin. The file's name must end in C(oci.yml) or C(oci.yaml).
    type: str
    required: true
    choices: [faceswap.ops.oci]
  compartments:
    description:
      - OCIDs of the compartments to search. Each must allow it.
      - Without any, every compartment that the user can see; those in which instances may not be listed are passed
        over. Naming them saves one request for each other compartment and region.
    type: list
    elements: str
    default: []
  regions:
    description: Regions to search, such as V(eu-frankfurt-1). Without any, all to which the tenancy is subscribed.
    type: list
    elements: str
    default: []
  state_dir:
    description:
      - Folder of the controller with one folder a stack. The pins are written there, to C(<name>/known_hosts).
    type: path
    default: ~/.local/state/faceswap-oci/stacks
  ssh_private_key_file:
    description:
      - Private key for the login on all hosts.
      - Without it, C(<name>/id_ed25519) of O(state_dir) where that exists, else what ssh offers by itself.
    type: path
  group:
    description: Group of the hosts that run.
    type: str
    default: faceswap
"""

EXAMPLES = r"""
---
# inventory/oci/hosts.oci.yml: everything that the profile DEFAULT can see
plugin: faceswap.ops.oci

---
# One compartment in two regions, remembered for ten minutes
plugin: faceswap.ops.oci
profile: workshop
compartments: [ocid1.compartment.oc1..aaaaexample]
regions: [eu-frankfurt-1, us-ashburn-1]
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/faceswap-oci
cache_timeout: 600

---
# One more group a shape
plugin: faceswap.ops.oci
keyed_groups:
  - key: oci_instance_info.shape
    prefix: shape
"""

OUR_TAGS = "faceswap-"
GONE = {"TERMINATING", "TERMINATED"}
STOPPED_GROUP = "oci_stopped"
CACHE_FORMAT = 2  # to be raised when `Instance` changes, so that an older cache is not read


class Instance(TypedDict):
    """What is kept of an instance: plain data, for it goes through the cache. `tags` are this project's only."""

    id: str
    region: str
    compartment_id: str
    availability_domain: str
    shape: str
    lifecycle_state: str
    preemptible: bool
    address: str | None
    tags: dict[str, str]


@dataclass(frozen=True)
class Host:
    """One host as the inventory will have it; `pins` are lines of the known_hosts file of `stack`."""

    name: str
    stack: str
    alias: str
    running: bool
    pins: list[str]
    variables: dict[str, Any]


def complaint(instance: Instance) -> str | None:
    """Return what hinders a pinned connection to an instance, None when nothing does."""
    if fault := stack_tags.fault(instance["tags"]):
        return fault
    if instance["lifecycle_state"] == "RUNNING" and not instance["address"]:
        return "it has no address"
    return None


def host_records(instances: Sequence[Instance], state_dir: Path) -> tuple[list[Host], list[str]]:
    """Return a record for each instance that can be reached safely, and warnings about the others, in their order."""
    hosts: dict[str, Host] = {}
    aliases: set[str] = set()
    warnings = []
    for instance in instances:
        tags = instance["tags"]
        hindrance = complaint(instance)
        if not hindrance and stack_tags.alias(tags) in aliases:
            hindrance = f"its tags {stack_tags.STACK} and {stack_tags.RUN} are those of another instance"
        if hindrance:
            warnings.append(
                f"Instance {instance['id']} in {instance['region']} is left out: {hindrance}. "
                "Destroy its stack and make it anew."
            )
            continue
        stack, run = tags[stack_tags.STACK], tags[stack_tags.RUN]
        names = (stack, f"{stack}.{instance['region']}", f"{stack}.{run}")
        name = next(name for name in names if name not in hosts or name == names[-1])
        if name != stack:
            first = hosts[stack].variables["oci_instance_info"]
            warnings.append(
                f"There are two stacks with the name {stack}: {stack} is {first['id']} in {first['region']}, "
                f"{name} is {instance['id']} in {instance['region']}."
            )
        alias = stack_tags.alias(tags)
        aliases.add(alias)
        variables: dict[str, Any] = {
            "ansible_user": tags[stack_tags.USER],
            "ansible_ssh_common_args": stack_tags.ssh_args(alias, str(pins_of(stack, state_dir))),
            "oci_instance_info": {
                "id": instance["id"],
                "region": instance["region"],
                "compartment_id": instance["compartment_id"],
                "availability_domain": instance["availability_domain"],
                "shape": instance["shape"],
                "lifecycle_state": instance["lifecycle_state"],
                "preemptible": instance["preemptible"],
                "expires": tags.get(stack_tags.EXPIRES),
                "run": run,
            },
        }
        if instance["address"]:
            variables["ansible_host"] = instance["address"]
        running = instance["lifecycle_state"] == "RUNNING"
        hosts[name] = Host(name, stack, alias, running, stack_tags.known_hosts_lines(tags), variables)
    return list(hosts.values()), warnings


def pins_of(stack: str, state_dir: Path) -> Path:
    """Return the path of a stack's pin file."""
    return state_dir / stack / "known_hosts"


def find_instances(cloud: Any, compartments: Sequence[str], regions: Sequence[str]) -> list[Instance]:
    """Return the instances with this project's mark, region by region.

    `cloud` is a `Cloud` of module_utils.oci_client. Without `compartments`, one that refuses the listing is passed
    over, unless all do. Raises OciError.
    """
    from ansible_collections.faceswap.ops.plugins.module_utils.oci_client import OciError

    found, refusals, answers = [], [], 0
    searched = compartments or cloud.compartments()
    for region in regions or cloud.regions():
        compute = cloud.compute(region)
        for compartment in searched:
            try:
                listed = cloud.listing(compute.list_instances, compartment)
            except OciError as error:
                if compartments or error.status != 404:
                    raise
                refusals.append(error)
                continue
            answers += 1
            for instance in listed:
                tags = instance.freeform_tags or {}
                if stack_tags.STACK in tags and instance.lifecycle_state not in GONE:
                    found.append(describe(cloud, region, instance))
    if refusals and not answers:
        raise refusals[0]
    return found


def describe(cloud: Any, region: str, instance: Any) -> Instance:
    """Return what is kept of an instance (a model of the SDK), after asking for its address. Raises OciError."""
    return {
        "id": instance.id,
        "region": region,
        "compartment_id": instance.compartment_id,
        "availability_domain": instance.availability_domain,
        "shape": instance.shape,
        "lifecycle_state": instance.lifecycle_state,
        "preemptible": instance.preemptible_instance_config is not None,
        "address": address_of(cloud, region, instance),
        "tags": {tag: value for tag, value in instance.freeform_tags.items() if tag.startswith(OUR_TAGS)},
    }


def address_of(cloud: Any, region: str, instance: Any) -> str | None:
    """Return the address of an instance's primary VNIC, the public one if there is one. Raises OciError."""
    from ansible_collections.faceswap.ops.plugins.module_utils.oci_client import OciError

    compute, network = cloud.compute(region), cloud.network(region)
    attachments = cloud.listing(compute.list_vnic_attachments, instance.compartment_id, instance_id=instance.id)
    for attachment in attachments:
        if attachment.lifecycle_state != "ATTACHED":
            continue
        try:
            vnic = cloud.call(network.get_vnic, attachment.vnic_id)
        except OciError as error:
            if error.status == 404:  # detached since the listing
                continue
            raise
        if vnic.is_primary:
            address: str | None = vnic.public_ip or vnic.private_ip
            return address
    return None


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):  # type: ignore[misc]  # core ships no types
    """Reads one inventory file; what is done with it is told above."""

    NAME = "faceswap.ops.oci"

    def verify_file(self, path: str) -> bool:
        """Tell whether a file is for this plugin, by its name."""
        return super().verify_file(path) and path.endswith(("oci.yml", "oci.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add the hosts to `inventory`; without `cache` (on refresh_inventory) the cloud is asked in any case."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        instances, fresh = self._instances(path, cache)
        self._populate(instances, fresh)

    def _instances(self, path: str, cache: bool) -> tuple[list[Instance], bool]:
        """Return the instances, and whether they come from the cloud rather than from the cache."""
        if not self.get_option("cache"):
            return self._ask_cloud(), True
        key = self._cache_key(path)
        held = self._cache.get(key) if cache else None
        if held is not None:
            return held, False
        self._cache[key] = self._ask_cloud()
        return self._cache[key], True

    def _cache_key(self, path: str) -> str:
        """Return the key of this file with these options: another profile must not get this one's hosts."""
        options = [self.get_option(name) for name in ("config_file", "profile", "auth", "compartments", "regions")]
        digest = hashlib.sha256(json.dumps([CACHE_FORMAT, *options]).encode()).hexdigest()
        return f"{self.get_cache_key(path)}_{digest[:12]}"

    def _ask_cloud(self) -> list[Instance]:
        """Return the instances as the cloud has them. AnsibleParserError with one sentence on failure."""
        from ansible_collections.faceswap.ops.plugins.module_utils.oci_client import OciError, connect

        try:
            cloud = connect(self.get_option("config_file"), self.get_option("profile"), self.get_option("auth"), None)
            return find_instances(cloud, self.get_option("compartments"), self.get_option("regions"))
        except OciError as error:
            raise AnsibleParserError(str(error)) from None

    def _populate(self, instances: Sequence[Instance], fresh: bool) -> None:
        """Pin the host keys, then add hosts, groups and variables."""
        state_dir = Path(self.get_option("state_dir"))
        hosts, warnings = host_records(instances, state_dir)
        warnings += self._pin(hosts, state_dir, fresh)
        for warning in warnings:
            self.display.warning(warning)
        running = self.inventory.add_group(self.get_option("group"))
        stopped = self.inventory.add_group(STOPPED_GROUP)
        for host in hosts:
            self.inventory.add_host(host.name, group=running if host.running else stopped)
            variables = host.variables | self._key_file(host.stack, state_dir)
            for variable, value in variables.items():
                self.inventory.set_variable(host.name, variable, value)
            self._construct(host.name, variables)

    def _pin(self, hosts: Sequence[Host], state_dir: Path, fresh: bool) -> list[str]:
        """Write the pins of all hosts; return a warning for each alias whose host key is another than before.

        What the cloud just said replaces what stood, for the tag comes over an authenticated connection. What the
        cache says may be older than a rotation of the key; it only fills in what is missing.
        """
        warnings = []
        for stack in dict.fromkeys(host.stack for host in hosts):
            path = pins_of(stack, state_dir)
            pins = {host.alias: host.pins for host in hosts if host.stack == stack}
            try:
                changed = pin_file.pin(path, pins, replace=fresh)
            except OSError as error:
                raise AnsibleParserError(
                    f"The host key of {stack} could not be pinned in {path} ({error.strerror}): "
                    "set state_dir to a folder that you may write."
                ) from None
            warnings += [
                f"The host key of {alias} changed to one that was never seen here. Its instance's tag says so, and "
                f"{path} now follows it; if nobody rotated that key, do not connect and look who may change tags."
                for alias in changed
            ]
        return warnings

    def _key_file(self, stack: str, state_dir: Path) -> dict[str, str]:
        """Return the variable that names the login key, or nothing where there is none."""
        own = state_dir / stack / "id_ed25519"
        path = self.get_option("ssh_private_key_file") or (str(own) if own.exists() else None)
        return {"ansible_ssh_private_key_file": path} if path else {}

    def _construct(self, host: str, variables: Mapping[str, Any]) -> None:
        """Apply the options compose, groups and keyed_groups."""
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), variables, host, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, host, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, host, strict=strict)
