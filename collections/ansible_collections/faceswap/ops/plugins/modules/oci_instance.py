#!/usr/bin/python
# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Ansible module: an instance on Oracle Cloud with its network, from nothing to a pinned host key, and back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: oci_instance
short_description: Make, stop and remove an instance on Oracle Cloud together with its network
version_added: 0.1.0
description:
  - Brings a stack, which is one instance and the network that it needs, to the wanted state in one process.
  - A stack is found by its O(name) and the tag C(faceswap-stack). What does not carry that tag is not touched.
  - All that a user can get wrong is checked before anything is made; what is made first costs nothing.
  - Before a launch it makes a plan of every try, which is each of O(shapes) in each availability domain of each of
    O(regions), in this order. What Oracle says for certain, such as a limit, rules a try out; of what is left each is
    tried until one is launched. A launch that comes to nothing leaves nothing.
  - The host key is made on the controller, installed by cloud-init, checked at the first connection and replaced
    in it by one that never leaves the instance. Its public half becomes a tag, from which the inventory plugin
    P(faceswap.ops.oci#inventory) pins it on any controller.
  - Whatever is asked for is written to a ledger below O(state_dir) before and after, so that a run which was
    killed at any moment can be repeated, and can be removed. Run it again to go on.
author:
  - The faceswap-oci maintainers
extends_documentation_fragment:
  - faceswap.ops.oci
options:
  state:
    description:
      - V(present) makes what is missing and starts a stopped instance.
      - V(stopped) stops the instance. Only some shapes stop billing then, and the boot volume never does.
      - V(absent) terminates the instance and removes its boot volume and network, in every region to which the
        tenancy is subscribed, and fails unless a last listing finds nothing.
    type: str
    choices: [present, stopped, absent]
    default: present
  name:
    description: The name of the stack, and of all that belongs to it. Up to 63 letters, digits and C(._-).
    type: str
    required: true
  compartment_id:
    description:
      - OCID of the compartment. Needed for V(present) and V(stopped).
      - V(absent) without it looks into every compartment that can be seen.
    type: str
  regions:
    description:
      - The regions to try, in their order, as V(us-ashburn-1). The default is the profile's.
      - The stack has one instance in one of them.
    type: list
    elements: str
    default: []
  state_dir:
    description: Folder on the controller for ledgers, pins and keys, one folder a stack in it.
    type: path
    default: ~/.local/state/faceswap-oci/stacks
  owner:
    description:
      - Who answers for it, for the tag C(faceswap-owner). The default is the login name on the controller.
      - A stack that another owner made, and that this controller has not met, is neither used nor removed.
    type: str
  hours:
    description:
      - After how many hours the stack is meant to be gone, for the tag C(faceswap-expires), 1 to 8760.
      - Nothing ends it by itself.
    type: int
    default: 24
  shapes:
    description:
      - The shapes to try in a region, in their order; all domains of a region before the next shape, all shapes
        before the next region. The shape is not changed on an instance that exists.
    type: list
    elements: str
    default: [VM.GPU.A10.1]
  ocpus:
    description: OCPUs, for flexible shapes only.
    type: float
  memory_gb:
    description: Memory in GB, for flexible shapes only.
    type: float
  availability_domains:
    description:
      - The availability domains to try, in their order, whole or their ends (V(AD-2)).
      - The default is all that offer the shape, those last which Oracle reports to be full.
    type: list
    elements: str
    default: []
  preemptible:
    description:
      - Ask for preemptible capacity where the shape can have it, at half the price; others are launched on demand,
        and the plan says so.
      - Oracle may take the instance back at any time, with two minutes' notice in its Events service, and what is on
        its boot volume is then lost. It cannot be stopped.
    type: bool
    default: false
  capacity_wait_s:
    description:
      - For how many seconds to go on trying when all that is in the way is a lack of capacity. 0 tries once.
    type: int
    default: 0
  operating_system:
    description: The operating system of the image.
    type: str
    default: Canonical Ubuntu
  operating_system_version:
    description: The version of the operating system.
    type: str
    default: "24.04"
  image_id:
    description:
      - OCID of the image. The default is the newest platform image that fits O(operating_system) and O(shape).
      - The one that was chosen stays chosen for as long as the stack lives.
    type: str
  user:
    description: The login of the image. The default is V(ubuntu) for Canonical Ubuntu and V(opc) for Oracle Linux.
    type: str
  boot_volume_gb:
    description: Size of the boot volume in GB, at least 50.
    type: int
    default: 100
  boot_volume_vpus:
    description: Volume performance units per GB, 10 to 120 in tens.
    type: int
    default: 10
  ssh_public_key_file:
    description:
      - Public key for the login. The private half is expected beside it, without C(.pub), or in an SSH agent.
      - The default is a key pair that is made for the stack below O(state_dir).
    type: path
  cloud_config:
    description:
      - More for cloud-init, as a cloud-config. The host key's part of it belongs to this module.
      - It stays readable on the instance and for all who may see it in the tenancy. Put no secrets into it.
    type: dict
    default: {}
  network:
    description:
      - V(public) gives the instance a public address and an internet gateway.
      - V(private) gives it none, and a NAT gateway for its way out; the controller must reach the subnet itself.
    type: str
    choices: [public, private]
    default: public
  vcn_cidr:
    description: CIDR of the VCN that is made.
    type: str
    default: 10.20.0.0/16
  subnet_cidr:
    description: CIDR of the subnet that is made.
    type: str
    default: 10.20.0.0/24
  vcn_id:
    description: OCID of a VCN that exists. Subnet, route table and security group are made in it, and it stays.
    type: str
  ssh_sources:
    description:
      - IPv4 networks that may reach port 22. Nothing else can be reached.
      - The default is the address under which O(address_service) sees the controller.
    type: list
    elements: str
  address_service:
    description: URL which answers with the caller's own IPv4 address as text.
    type: str
    default: https://checkip.amazonaws.com
  wait_for_ssh:
    description: Make the first contact by SSH and replace the host key. Without it the instance is only running.
    type: bool
    default: true
  wait_s:
    description: Seconds after which waiting for the instance, or for its removal, is given up.
    type: int
    default: 1200
attributes:
  check_mode:
    description: Asks Oracle, and says what would be made, changed or removed.
    support: full
  diff_mode:
    description: Shows the parts of the stack before and after.
    support: full
  idempotent:
    description: A second run changes nothing, and never makes a second instance for a newer image.
    support: full
seealso:
  - plugin: faceswap.ops.oci
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Have a GPU instance, reachable and pinned
  faceswap.ops.oci_instance:
    name: faceswap
    compartment_id: ocid1.compartment.oc1..example
    regions: [us-ashburn-1]
    hours: 8

- name: The same, wherever there is one, and wait an hour for it
  faceswap.ops.oci_instance:
    name: faceswap
    compartment_id: ocid1.compartment.oc1..example
    regions: [eu-frankfurt-1, us-ashburn-1]
    shapes: [VM.GPU.A10.1, VM.GPU.A10.2, VM.GPU3.1]
    capacity_wait_s: 3600

- name: The same without a GPU, on Oracle Linux, reachable from an office
  faceswap.ops.oci_instance:
    name: rehearsal
    compartment_id: ocid1.compartment.oc1..example
    shapes: [VM.Standard.E5.Flex]
    ocpus: 2
    memory_gb: 16
    operating_system: Oracle Linux
    operating_system_version: "9"
    ssh_sources: [198.51.100.0/29]

- name: Leave nothing behind
  faceswap.ops.oci_instance:
    name: faceswap
    state: absent
"""

RETURN = r"""
instance:
  description: The instance, empty where there is none.
  returned: when O(state) is V(present) or V(stopped)
  type: dict
  contains:
    id:
      description: OCID.
      type: str
    name:
      description: Name of the stack.
      type: str
    region:
      description: Its region.
      type: str
    compartment_id:
      description: Its compartment.
      type: str
    availability_domain:
      description: Its availability domain.
      type: str
      sample: "Uocm:US-ASHBURN-AD-2"
    shape:
      description: Its shape.
      type: str
    image_id:
      description: OCID of its image.
      type: str
    lifecycle_state:
      description: Its state, as Oracle names it.
      type: str
      sample: RUNNING
    address:
      description: Where to reach it, which is the public address or else the private one.
      type: str
    public_ip:
      description: Its public address, empty without one.
      type: str
    private_ip:
      description: Its private address.
      type: str
    user:
      description: The login.
      type: str
      sample: ubuntu
    host_key_alias:
      description: The name under which its host key is pinned.
      type: str
    known_hosts:
      description: The file that pins it.
      type: str
    private_key_file:
      description: The private key for the login, empty when it is left to an SSH agent.
      type: str
    expires:
      description: When it is meant to be gone, UTC.
      type: str
      sample: "2026-11-23T10:00:00Z"
plan:
  description: What a launch would be, or was. C(lines) tells it to people, as a table.
  returned: when there was no instance, and in check mode
  type: dict
  contains:
    lines:
      description: The plan for people.
      type: list
      elements: str
    makes:
      description: The kinds of what would be made.
      type: list
      elements: str
    hours:
      description: The hours that it is planned for.
      type: int
    currency:
      description: The currency of all prices, which are list prices without tax, discounts and free allowances.
      type: str
      sample: USD
    prices:
      description: Whose price list that is, and of which day.
      type: str
    prices_date:
      description: That day.
      type: str
      sample: "2026-11-22"
    prices_live:
      description: Whether it is Oracle's own, and not the dated copy in this collection.
      type: bool
    notes:
      description: Sentences on what could not be had as asked, or not be read.
      type: list
      elements: str
    tries:
      description: Every try in its order.
      type: list
      elements: dict
      contains:
        shape:
          description: The shape.
          type: str
        region:
          description: The region.
          type: str
        availability_domain:
          description: The availability domain.
          type: str
        preemptible:
          description: Whether it is asked for as preemptible.
          type: bool
        verdict:
          description:
            - C(possible), or why it is ruled out. Known before are C(not_entitled), C(unknown_shape),
              C(wrong_region), C(not_offered) in this domain, C(no_image) and C(limit).
            - A launch may be answered with C(capacity), C(throttled), C(limit), C(quota), C(not_found) or
              C(not_preemptible), and may be accepted and have C(died).
          type: str
        why:
          description: The verdict in a sentence with its remedy; empty for C(possible).
          type: str
        usd_per_hour:
          description: Price of an hour with the boot volume; null where it is not known.
          type: float
        usd:
          description: Price of all its hours.
          type: float
        capacity:
          description: What the capacity report says, as Oracle names it; advice only. Empty where there is none.
          type: str
        account:
          description: Which kinds of account can run it.
          type: str
        image:
          description: Name of the image.
          type: str
        limits:
          description: The limits that it counts against, with what is used, what is available and what it needs.
          type: list
          elements: dict
resources:
  description: All that belongs to the stack, as noted in the ledger.
  returned: always
  type: list
  elements: dict
  contains:
    kind:
      description: What it is.
      type: str
      sample: boot_volume
    id:
      description: OCID.
      type: str
    region:
      description: Its region.
      type: str
remaining:
  description: What the last listing found, in every region; always empty, since anything else is a failure.
  returned: when O(state) is V(absent)
  type: list
  elements: dict
regions:
  description: The regions in which the last listing looked.
  returned: when O(state) is V(absent)
  type: list
  elements: str
"""

import getpass
import ipaddress
import subprocess
import time
import uuid
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.client import HTTPException
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.faceswap.ops.plugins.module_utils import (
    first_contact,
    oci_failover,
    oci_launch,
    oci_plan,
    oci_stack,
    stack_tags,
)
from ansible_collections.faceswap.ops.plugins.module_utils.oci_client import (
    AUTH_SPEC,
    Cloud,
    OciError,
    connect,
    models,
)
from ansible_collections.faceswap.ops.plugins.module_utils.private_files import write_file
from ansible_collections.faceswap.ops.plugins.module_utils.progress import clock
from ansible_collections.faceswap.ops.plugins.module_utils.run_ledger import STATE_DIR, Ledger, LedgerBusyError
from ansible_collections.faceswap.ops.plugins.module_utils.run_progress import RunProgress, progress_file

_TIME = "%Y-%m-%dT%H:%M:%SZ"  # UTC, and in the order of time when sorted as text
_FAULTLESS_S = 1.0  # a launch that failed shows it by its state soon; only one that takes longer is looked into

SPEC: dict[str, dict[str, Any]] = {
    **AUTH_SPEC,
    "state": {"type": "str", "choices": ["present", "stopped", "absent"], "default": "present"},
    "name": {"type": "str", "required": True},
    "compartment_id": {"type": "str"},
    "regions": {"type": "list", "elements": "str", "default": []},
    "state_dir": {"type": "path", "default": STATE_DIR},
    "owner": {"type": "str"},
    "hours": {"type": "int", "default": 24},
    "shapes": {"type": "list", "elements": "str", "default": ["VM.GPU.A10.1"]},
    "ocpus": {"type": "float"},
    "memory_gb": {"type": "float"},
    "availability_domains": {"type": "list", "elements": "str", "default": []},
    "preemptible": {"type": "bool", "default": False},
    "capacity_wait_s": {"type": "int", "default": 0},
    "operating_system": {"type": "str", "default": "Canonical Ubuntu"},
    "operating_system_version": {"type": "str", "default": "24.04"},
    "image_id": {"type": "str"},
    "user": {"type": "str"},
    "boot_volume_gb": {"type": "int", "default": 100},
    "boot_volume_vpus": {"type": "int", "default": 10},
    "ssh_public_key_file": {"type": "path", "no_log": False},
    "cloud_config": {"type": "dict", "default": {}},
    "network": {"type": "str", "choices": ["public", "private"], "default": "public"},
    "vcn_cidr": {"type": "str", "default": "10.20.0.0/16"},
    "subnet_cidr": {"type": "str", "default": "10.20.0.0/24"},
    "vcn_id": {"type": "str"},
    "ssh_sources": {"type": "list", "elements": "str"},
    "address_service": {"type": "str", "default": "https://checkip.amazonaws.com"},
    "wait_for_ssh": {"type": "bool", "default": True},
    "wait_s": {"type": "int", "default": 1200},
}


class Manager:
    """Brings one stack to the wanted state. `params` are the module's; sentences for the user go to `warnings`."""

    def __init__(self, params: dict[str, Any], check_mode: bool) -> None:
        self.params = params
        self.check_mode = check_mode
        self.warnings: list[str] = []
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        self.plan: dict[str, Any] = {}
        self.ledger = Ledger(self.folder / "ledger.jsonl", writing=not check_mode)
        self.progress = RunProgress(None if check_mode else progress_file(params["state_dir"], params["name"]))
        self._deadline = time.monotonic() + params["wait_s"]

    @property
    def folder(self) -> Path:
        """What this controller keeps of the stack."""
        return Path(self.params["state_dir"], self.params["name"])

    @property
    def known_hosts(self) -> Path:
        """The pin."""
        return self.folder / "known_hosts"

    # -- states ----------------------------------------------------------------------------------------

    def present(self) -> dict[str, Any]:
        """Make what is missing, start what is stopped, and get to know the host key."""
        wish, login = self._wish(), self._login()
        network = self._network(["192.0.2.1/32"])  # checked first with an address to stand for ours
        oci_stack.check_network(network)
        cloud = self._connect()
        stacks = self._stacks(cloud)
        stack, row = self._find(stacks)
        left = [other for other in stacks if any(other.found[kind] for kind in oci_stack.NETWORK)]
        self._refuse_elsewhere(cloud, stacks, row)
        if row is not None and row.lifecycle_state == "PROVISIONING" and not self.check_mode:
            try:  # the launch of a run that was cut off
                row = self._until_running(stack, row)
            except oci_launch.LaunchRefusedError as refused:
                self.warnings.append(str(refused))
                row = None
        if row is None:
            made = self._make(stacks, wish, network, login)
            if made is None:
                return {"instance": {}}
            stack, row = made
        else:
            self._check_tags(row)
            self._warn_of_differences(row, wish)
            if not self.params["ssh_public_key_file"] and not self._private_key_file():
                self.warnings.append(
                    f"The login key of {stack.name} is not on this controller: copy {self.folder / 'id_ed25519'} "
                    "from the one that made the instance, or destroy the stack and make it again."
                )
            if not self.params["ssh_sources"]:
                network.ssh_sources = [self._own_address()]
            self._make_network(stack, network)
            row = self._running(stack, row)
        self.before, self.after = stack.before, stack.after
        if self.check_mode:
            volume = next(iter(stack.boot_volumes(row)), None)
            self.plan = oci_plan.plan_of_what_stands(row, volume, self.params["hours"]).as_data()
            if row.lifecycle_state != "RUNNING":
                return {"instance": {}}
        self._mark_boot_volume(stack, row)
        vnic = self._vnic(stack, row)
        row = self._contact(stack, row, vnic)
        for other in stacks:
            if other is not stack:
                self._leave(other, stack if other in left else other)
        return {"instance": self._facts(stack, row, vnic)}

    def stopped(self) -> dict[str, Any]:
        """Stop the instance, if there is one."""
        stack, row = self._find(self._stacks(self._connect()), ["instance"])
        self.before, self.after = stack.before, stack.after
        if row is None:
            return {"instance": {}}
        self._check_tags(row)
        if row.preemptible_instance_config:
            raise OciError(
                f"The instance {row.id} is preemptible, and Oracle stops none of these: only destroy ends it."
            )
        self._live(stack)
        if stack.show("instance", _state(row, row.lifecycle_state), _state(row, "STOPPED")):
            if row.lifecycle_state in ("PROVISIONING", "STARTING"):
                row = stack.wait("instance", row.id, ["RUNNING"])
            if row.lifecycle_state != "STOPPING":
                stack.act(row.id, "SOFTSTOP")
            row = stack.wait("instance", row.id, ["STOPPED"])
        if ".GPU" in row.shape and ".GPU.A10" not in row.shape:
            self.warnings.append(f"{row.shape} goes on billing while it is stopped: only state absent ends that.")
        return {"instance": self._facts(stack, row, self._vnic(stack, row))}

    def absent(self) -> dict[str, Any]:
        """Remove all of the stack, in every region, and look once more."""
        cloud = self._connect()
        given = self.params["compartment_id"]
        compartments = [given] if given else cloud.compartments()
        places = {(region, compartment) for region in cloud.regions() for compartment in compartments}
        rows: list[tuple[oci_stack.Stack, list[dict[str, Any]]]] = []
        faults: list[OciError] = []
        hidden: list[OciError] = []
        for place in sorted(places | self.ledger.places()):
            stack = self._stack(cloud, *place)
            try:
                stack.look(["instance"])
                self._settle([stack], oci_stack.KINDS)
            except OciError as error:
                if place in self.ledger.places():
                    error = self._out_of_sight(place, error)
                # Who may look into one compartment only has made nothing in the others.
                (faults if given or place in self.ledger.places() or not error.not_found else hidden).append(error)
                continue
            try:
                ours = stack.remains()
                for row in ours:
                    self._refuse_strangers(row["tags"], stack.region)
                rows.append((stack, ours))
            except OciError as error:  # the others are removed all the same
                faults.append(error)
        if hidden and not rows:
            raise hidden[0]
        looked = sorted({stack.region for stack, _ in rows})
        self.before = {
            row["id"]: f"{row['kind']} {row['name']} in {row['region']}" for _, ours in rows for row in ours
        }
        if not self.before:  # a name that was mistyped, or changed since, must not pass for a bill that has ended
            others = sorted(f"{name} in {stack.region}" for stack, _ in rows for name in stack.others())
            if others:
                self.warnings.append(
                    f"Nothing of {self.params['name']} was found, but other stacks stand and bill: "
                    f"{', '.join(others)}. Destroy them by their own names."
                )
        for stack, ours in [] if self.check_mode else rows:
            for row in ours:  # from now on it is known, whether this controller made it or not
                self.ledger.made(row["kind"], stack.region, stack.compartment, row["id"])
            try:
                if ours:
                    self.progress.say(f"Removing {len(ours)} things of {stack.name} in {stack.region}")
                    stack.remove()
            except OciError as error:
                faults.append(error)
        if faults:
            raise faults[0]
        if self.check_mode:
            return {"remaining": [], "regions": looked}
        if remaining := [row for stack, _ in rows for row in stack.remains()]:
            raise OciError(
                f"{len(remaining)} things of the stack are still there, as the {remaining[0]['kind']} "
                f"{remaining[0]['id']}: run this again."
            )
        self._forget()
        return {"remaining": [], "regions": looked}

    def _forget(self) -> None:
        """Nothing is left of the stack: end its life in the ledger, and its pin."""
        if self.ledger.life:
            self.ledger.end()
        for path in (self.known_hosts, *self.folder.glob("host_key-*")):
            path.unlink(missing_ok=True)

    def _out_of_sight(self, place: tuple[str, str], error: OciError) -> OciError:
        if not error.not_found:
            return error
        return OciError(
            f"The ledger has things of {self.params['name']} in compartment {place[1]}, region {place[0]}, which "
            "this profile cannot see: use the profile that made them; if that compartment is gone, remove "
            f"{self.folder / 'ledger.jsonl'}.",
            error.status,
            error.code,
        )

    # -- what the user typed ---------------------------------------------------------------------------

    def _wish(self) -> oci_launch.Wish:
        gb, vpus = self.params["boot_volume_gb"], self.params["boot_volume_vpus"]
        if gb < 50:
            raise OciError(f"boot_volume_gb is {gb}, and Oracle makes none below 50: use 50 or more.")
        if vpus not in range(10, 121, 10):
            raise OciError(f"boot_volume_vpus is {vpus}, and Oracle takes 10 to 120 in tens: 10 is balanced.")
        if not 1 <= self.params["hours"] <= 8760:
            raise OciError(f"hours is {self.params['hours']}: say after how many hours, 1 to 8760, it shall be gone.")
        try:  # a key of the same size stands for the one that is made later
            first_contact.user_data("-" * 400, "-" * 100, self.params["cloud_config"])
        except ValueError as error:
            raise OciError(f"This cannot be launched: {error}.") from None
        if self.params["capacity_wait_s"] < 0:
            raise OciError(f"capacity_wait_s is {self.params['capacity_wait_s']}: 0 waits for no capacity.")
        if not self.params["shapes"]:
            raise OciError("shapes is empty: name at least one, as VM.GPU.A10.1.")
        if self.params["vcn_id"] and len(self.params["regions"]) > 1:
            raise OciError("vcn_id lies in one region, and regions names several: name the one of the VCN.")
        names = oci_launch.Wish.__dataclass_fields__
        return oci_launch.Wish(**{name: self.params[name] for name in names})

    def _network(self, sources: list[str]) -> oci_stack.Network:
        return oci_stack.Network(
            public=self.params["network"] == "public",
            vcn_cidr=self.params["vcn_cidr"],
            subnet_cidr=self.params["subnet_cidr"],
            vcn_id=self.params["vcn_id"],
            ssh_sources=self.params["ssh_sources"] or sources,
        )

    def _login(self) -> str:
        """The public line of the key for the login; '' for the stack's own, which is not made yet."""
        if missing := first_contact.missing_program():
            raise OciError(f"There is no {missing} on this controller: install OpenSSH's client (openssh-client).")
        given = self.params["ssh_public_key_file"]
        if not given:
            return ""
        path = Path(given)
        try:
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise OciError(f"ssh_public_key_file {path} cannot be read ({why}): name your .pub file.") from None
        if "PRIVATE KEY" in text:
            raise OciError(f"ssh_public_key_file {path} is a private key, which must stay here: name its .pub file.")
        try:
            first_contact.public_key(text)
        except ValueError:
            raise OciError(f"ssh_public_key_file {path} holds no OpenSSH public key: name your .pub file.") from None
        private = path.with_suffix("")
        if path.suffix == ".pub" and private.is_file() and private.stat().st_mode & 0o077:
            raise OciError(
                f"The private key {private} can be read by others, and ssh refuses it: chmod 600 '{private}'."
            )
        return text

    def _private_key_file(self) -> str:
        given = self.params["ssh_public_key_file"]
        path = Path(given).with_suffix("") if given else self.folder / "id_ed25519"
        return str(path) if path.is_file() and str(path) != given else ""

    def _own_address(self) -> str:
        url = self.params["address_service"]
        try:
            with open_url(url, timeout=10) as answer:
                return f"{ipaddress.IPv4Address(answer.read(100).decode('ascii').strip())}/32"
        except (OSError, HTTPException, ValueError) as error:
            raise OciError(
                f"{url} did not tell this controller's IPv4 address ({getattr(error, 'reason', error)}): give the "
                "addresses that may enter as ssh_sources."
            ) from None

    # -- steps -----------------------------------------------------------------------------------------

    def _connect(self) -> Cloud:
        compartment = self.params["compartment_id"]
        if not compartment and self.params["state"] != "absent":
            raise OciError("compartment_id is empty: copy the OCID from the console (Identity, Compartments).")
        if compartment and not compartment.startswith(("ocid1.compartment.", "ocid1.tenancy.")):
            raise OciError(f"compartment_id {compartment} is not the OCID of a compartment (ocid1.compartment....).")
        config_file, profile, auth = (self.params[name] for name in ("config_file", "profile", "auth"))
        return connect(config_file, profile, auth, next(iter(self.params["regions"]), None))

    def _stack(self, cloud: Cloud, region: str, compartment: str) -> oci_stack.Stack:
        return oci_stack.Stack(
            cloud=cloud,
            ledger=self.ledger,
            region=region,
            compartment=compartment,
            name=self.params["name"],
            tags={},
            check_mode=self.check_mode,
            deadline=self._deadline,
        )

    def _stacks(self, cloud: Cloud) -> list[oci_stack.Stack]:
        """The stack as it may be in each of the regions asked for."""
        regions = list(dict.fromkeys(self.params["regions"])) or [cloud.region]
        oci_launch.check_place(cloud, regions, self.params["compartment_id"])
        return [self._stack(cloud, region, self.params["compartment_id"]) for region in regions]

    def _find(
        self, stacks: list[oci_stack.Stack], kinds: Collection[str] = oci_stack.KINDS
    ) -> tuple[oci_stack.Stack, Any | None]:
        """The one with the instance, and the instance; the first one and None where there is none."""
        for stack in stacks:
            stack.look(kinds)
            self._refuse_strangers(stack.known_tags(), stack.region)
        if not any(stack.found["instance"] for stack in stacks):
            self._settle([*stacks, *self._asked_elsewhere(stacks)], ["instance"])
        standing = [(stack, row) for stack in stacks if (row := stack.instance())]
        if len(standing) > 1:
            regions = " and in ".join(stack.region for stack, _ in standing)
            raise OciError(
                f"The stack {stacks[0].name} has an instance in {regions}: terminate all but one of them, for each "
                "one bills."
            )
        for stack in stacks:
            for row in stack.lost:
                how = ": Oracle took it back, for it was preemptible" if row.preemptible_instance_config else ""
                self.warnings.append(f"The instance {row.id} of before is {row.lifecycle_state}{how}.")
                stack.remains(["boot_volume"])  # takes what went with it out of the ledger
        if not standing:
            return stacks[0], None
        return standing[0]

    def _asked_elsewhere(self, stacks: list[oci_stack.Stack]) -> list[oci_stack.Stack]:
        """The place of a launch without an answer, where that is none of today's: looked into."""
        places = {(stack.region, stack.compartment) for stack in stacks}
        intent = self.ledger.open_intents().get("instance")
        if intent is None or (intent["region"], intent["compartment"]) in places:
            return []
        stack = self._stack(stacks[0].cloud, intent["region"], intent["compartment"])
        stack.look(["instance"])
        return [stack]

    def _settle(self, stacks: list[oci_stack.Stack], kinds: Collection[str]) -> None:
        """Wait for what was asked for without an answer: if it exists, Oracle lists it before long."""
        end = time.monotonic() + self.ledger.unsettled_s(kinds)
        while (left := end - time.monotonic()) > 0 and self.ledger.unsettled_s(kinds) > 0:
            self.progress.now(f"a request was cut off: looking for what it may have made, {clock(left)}")
            time.sleep(min(left, 0.5))
            for stack in stacks:
                stack.look(kinds)

    def _owner(self) -> str:
        try:
            return str(self.params["owner"] or getpass.getuser())
        except (KeyError, OSError):  # a container whose user has no name
            raise OciError("This user has no login name: say who answers for the stack with owner.") from None

    def _refuse_strangers(self, tags: dict[str, str], region: str) -> None:
        """Two people in one compartment may choose the same name: what the other one made is not ours."""
        owner = tags.get(stack_tags.OWNER, "nobody")
        if tags and owner != self._owner() and not self.ledger.met(tags.get(stack_tags.RUN, "")):
            raise OciError(
                f"The stack {self.params['name']} in {region} is {owner}'s, by its tag {stack_tags.OWNER}: choose "
                f"another name, or set owner to {owner} to work on it from here."
            )

    def _refuse_elsewhere(self, cloud: Cloud, stacks: list[oci_stack.Stack], row: Any | None) -> None:
        """A stack has one instance, in one place: a second one would bill beside it."""
        known = {
            (line["region"], line["compartment"]) for line in self.ledger.standing() if line["kind"] == "instance"
        }
        places = set()
        for place in known - {(stack.region, stack.compartment) for stack in stacks}:
            there = self._stack(cloud, *place)
            there.look(["instance"])
            if there.found["instance"]:
                places.add(place)
        if row is None:  # only a launch could make a second one, and the ledger may be another controller's
            stack, here = stacks[0], {stack.region for stack in stacks}
            others = [region for region in cloud.regions() if region not in here]
            places |= {(region, stack.compartment) for region in others if stack.elsewhere(region)}
        for region, compartment in places:
            raise OciError(
                f"The stack {stacks[0].name} has an instance in {region}, compartment {compartment}: "
                "destroy it first, or choose another name for a second one."
            )

    @staticmethod
    def _check_tags(row: Any) -> None:
        if fault := stack_tags.fault(row.freeform_tags):
            raise OciError(
                f"The instance {row.id} cannot be used, for {fault}: restore the tag, or destroy the stack and make "
                "it again."
            )

    def _live(self, stack: oci_stack.Stack, launching: bool = False) -> None:
        """Give the stack the tags of the life that goes on, or of a new one."""
        tags = stack.known_tags()
        run, owner, expires = (tags.get(name, "") for name in (stack_tags.RUN, stack_tags.OWNER, stack_tags.EXPIRES))
        if stack_tags.PATTERNS[stack_tags.RUN].fullmatch(run) and self.ledger.life.get("run") != run:
            self.ledger.begin(run, owner, expires)  # another controller began it
        life = self.ledger.life
        now = datetime.now(UTC)
        if not life or (launching and life["expires"] <= now.strftime(_TIME)):  # nothing is launched expired
            end = (now + timedelta(hours=self.params["hours"])).strftime(_TIME)
            self.ledger.begin(life.get("run") or uuid.uuid4().hex[:12], life.get("owner") or self._owner(), end)
        life = self.ledger.life
        stack.tags = {
            stack_tags.STACK: stack.name,
            stack_tags.RUN: life["run"],
            stack_tags.OWNER: life["owner"],
            stack_tags.EXPIRES: life["expires"],
        }

    # -- the launch ------------------------------------------------------------------------------------

    def _make(
        self, stacks: list[oci_stack.Stack], wish: oci_launch.Wish, network: oci_stack.Network, login: str
    ) -> tuple[oci_stack.Stack, Any] | None:
        """Launch the first try of the plan that Oracle does not refuse; None in check mode."""
        by_region = {stack.region: stack for stack in stacks}
        makes = {stack.region: ["instance", "boot_volume", *stack.missing(network)] for stack in stacks}
        plan = oci_plan.make_plan(
            stacks[0].cloud, stacks[0].compartment, makes, wish, self.ledger, self.params["hours"]
        )
        for line in plan.lines():
            self.progress.say(line)
        self.plan = plan.as_data()
        if not plan.possible():
            raise OciError(plan.refusal())
        self._repeat_first(plan)
        oci_stack.check_overlap(stacks[0], network)
        if not self.params["ssh_sources"]:
            network.ssh_sources = [self._own_address()]
        parts: dict[str, tuple[str | None, str | None]] = {}

        def launch(candidate: oci_launch.Candidate) -> tuple[oci_stack.Stack, Any]:
            stack = by_region[candidate.region]
            stack.deadline = time.monotonic() + self.params["wait_s"]
            try:
                if stack.region not in parts:
                    parts[stack.region] = self._make_network(stack, replace(network))
            except OciError as error:
                if not error.limit:  # the next try would need the same network
                    raise
                raise oci_launch.LaunchRefusedError(oci_launch.refusal(error), error.said) from None
            self._live(stack, launching=True)  # again, for it may have expired while a host was waited for
            try:
                row = self._launch(stack, wish, candidate, login, *parts[stack.region])
            except OciError as error:
                kind = oci_launch.refusal(error)
                if not kind:
                    raise
                raise oci_launch.LaunchRefusedError(kind, _refused(candidate, kind, error)) from None
            return stack, self._until_running(stack, row)

        def check_alone() -> None:
            for stack in stacks:
                stack.look(["instance"])
                if stack.found["instance"]:
                    raise OciError(
                        f"Another controller has launched {stack.name} in {stack.region} meanwhile: run the same "
                        "again."
                    )

        if self.check_mode:
            first = plan.possible()[0]
            stack = by_region[first.region]
            self._make_network(stack, network)
            self._show_launch(stack, wish, first)
            self.before, self.after = stack.before, stack.after
            return None
        try:
            made: tuple[oci_stack.Stack, Any] = oci_failover.launch_first(
                plan, launch, self.params["capacity_wait_s"], check_alone, self.progress
            )
        except OciError as error:
            self._give_up(stacks, error)
            raise
        finally:
            self.plan = plan.as_data()
        return made

    def _repeat_first(self, plan: oci_plan.Plan) -> None:
        """A launch whose answer never came is asked for again before any other: its token makes it one."""
        intent = self.ledger.open_intents().get("instance", {})
        plan.candidates.sort(key=lambda row: (row.region, row.what) != (intent.get("region"), intent.get("what")))

    def _make_network(self, stack: oci_stack.Stack, network: oci_stack.Network) -> tuple[str | None, str | None]:
        self.warnings += stack.keep_network(network)
        self._live(stack, launching=not stack.found["instance"])
        return stack.make_network(network)

    def _show_launch(self, stack: oci_stack.Stack, wish: oci_launch.Wish, candidate: oci_launch.Candidate) -> None:
        assert candidate.choice is not None
        shown = {
            "shape": candidate.shape,
            **(candidate.choice.shape_config or {}),
            **({"preemptible": True} if candidate.preemptible else {}),
            "boot_volume": f"{wish.boot_volume_gb} GB with {wish.boot_volume_vpus} VPUs per GB",
            "image": candidate.choice.image_id,
            "region": candidate.region,
            "availability_domain": candidate.domain,
            "state": "RUNNING",
        }
        stack.show("boot_volume", None, "tagged")
        stack.show("host_key", None, "rotated" if self.params["wait_for_ssh"] else "first")
        stack.show("instance", None, shown)

    def _launch(
        self,
        stack: oci_stack.Stack,
        wish: oci_launch.Wish,
        candidate: oci_launch.Candidate,
        login: str,
        subnet: str | None,
        group: str | None,
    ) -> Any:
        """Ask for the instance; return it as Oracle accepted it."""
        assert candidate.choice is not None
        self._show_launch(stack, wish, candidate)
        alias = stack_tags.alias(stack.tags)
        key_path = self.folder / f"host_key-{stack.tags[stack_tags.RUN]}"
        host_key = first_contact.make_key(key_path, alias)
        data = first_contact.user_data(key_path.read_text(encoding="utf-8"), host_key, self.params["cloud_config"])
        tags = {
            **stack.tags,
            stack_tags.USER: candidate.choice.user,
            stack_tags.HOST_KEY: stack_tags.host_key_tag("first", [first_contact.public_key(host_key)]),
        }
        self._pin(tags)
        if self.ledger.pinned_image(candidate.choice.pin) != candidate.choice.image_id:
            self.ledger.pin_image(candidate.choice.pin, candidate.choice.image_id)
        login = login or first_contact.make_key(self.folder / "id_ed25519", f"faceswap-oci {stack.name}")
        vnic = models.CreateVnicDetails(
            display_name=stack.name,
            subnet_id=subnet,
            nsg_ids=[group],
            assign_public_ip=not stack.found["subnet"][0].prohibit_public_ip_on_vnic,
            skip_source_dest_check=False,
            freeform_tags=stack.tags,
        )
        metadata = {"ssh_authorized_keys": login, "user_data": data}
        details = oci_launch.launch_details(wish, candidate, vnic, metadata)
        details.compartment_id = stack.compartment
        details.display_name = stack.name
        details.freeform_tags = tags
        launch = stack.cloud.compute(stack.region).launch_instance
        return stack.create("instance", launch, details, candidate.what)

    def _until_running(self, stack: oci_stack.Stack, row: Any) -> Any:
        """Wait for an instance that is PROVISIONING; one whose launch fails is removed. Raises LaunchRefusedError."""
        began, pause = time.monotonic(), 0.1
        get_instance = stack.cloud.compute(stack.region).get_instance
        while row.lifecycle_state != "RUNNING":
            dead = row.lifecycle_state in oci_stack.DEAD
            waited = time.monotonic() - began
            fault = stack.launch_fault(row.id) if dead or waited > _FAULTLESS_S else None
            if dead or fault:
                stack.discard(row)
                raise oci_launch.LaunchRefusedError(
                    "capacity" if fault and "capacity" in fault.lower() else "died",
                    f"The launch of {row.shape} in {row.availability_domain} was accepted, and then failed "
                    f"({fault or 'Oracle gives no reason'}): nothing is left of it, so try again or elsewhere.",
                )
            if time.monotonic() >= stack.deadline:
                raise OciError(
                    f"The instance {row.id} is still {row.lifecycle_state}, not RUNNING: run the same again to go on "
                    "waiting (wait_s says for how long), or destroy it."
                )
            self.progress.now(f"{row.shape} in {row.availability_domain} is {row.lifecycle_state}, {clock(waited)}")
            time.sleep(pause)
            pause = min(1.5 * pause, 5.0)
            row = stack.cloud.call(get_instance, row.id)
        self.progress.say(f"{row.shape} in {row.availability_domain} is RUNNING")
        return row

    def _give_up(self, stacks: list[oci_stack.Stack], error: OciError) -> None:
        """After a launch that came to nothing, leave nothing: the network was made for it alone."""
        cause = "as long as the cause lasts, nothing can be removed"
        if not error.unknown and error.status != 401 and "instance" not in self.ledger.open_intents():
            try:
                for stack in stacks:
                    stack.look(["instance"])
                    for row in stack.found["instance"]:
                        self.warnings.append(
                            f"The instance {row.id} is there, {row.lifecycle_state}, and may bill: run the same "
                            "again to go on with it, or destroy it."
                        )
                        return
                for stack in stacks:
                    stack.deadline = time.monotonic() + self.params["wait_s"]  # the try may have used up its own
                    stack.remove(oci_stack.NETWORK)
                if not self.ledger.standing():
                    self._forget()
                return
            except OciError as second:
                cause = str(second).rstrip(".")
        if self.ledger.standing() or self.ledger.open_intents():
            self.warnings.append(
                f"Parts of the stack {self.params['name']} may be left ({cause}): run the same again, or destroy it."
            )

    def warn_of_bill(self) -> None:
        """After a failure: say what may cost money by now, unless that was said already."""
        kinds = {line["kind"] for line in self.ledger.standing()} | set(self.ledger.open_intents())
        if "instance" in kinds and not any("may bill" in warning for warning in self.warnings):
            self.warnings.append(
                f"An instance of {self.params['name']} may stand, and may bill until it is destroyed: only a destroy "
                "that succeeds ends that."
            )

    def _leave(self, other: oci_stack.Stack, shown: oci_stack.Stack) -> None:
        """Remove the network from a region in which the instance is not.

        It belongs to the difference, as `shown` has it, if an earlier run left it there.
        """
        if any(other.found[kind] for kind in oci_stack.NETWORK):
            shown.show(f"network in {other.region}", "left over", None)
            if not self.check_mode:
                try:
                    other.remove(oci_stack.NETWORK)
                except OciError as error:  # it costs nothing, and the instance is there
                    self.warnings.append(f"The network of {other.name} in {other.region} is left over: {error}")

    def _running(self, stack: oci_stack.Stack, row: Any) -> Any:
        state = row.lifecycle_state
        if not stack.show("instance", _state(row, state), _state(row, "RUNNING")):
            return row
        if state == "STOPPING":
            row = stack.wait("instance", row.id, ["STOPPED"])
        if row.lifecycle_state == "STOPPED":
            stack.act(row.id, "START")
        return stack.wait("instance", row.id, ["RUNNING"])

    def _mark_boot_volume(self, stack: oci_stack.Stack, row: Any) -> None:
        """Tag the boot volume, which a launch leaves untagged, so that it is found without the ledger too."""
        client = stack.cloud.storage(stack.region)
        for volume in stack.boot_volumes(row):
            stack.ledger.made("boot_volume", stack.region, stack.compartment, volume.id)
            tags = {**(volume.freeform_tags or {}), **stack.tags}
            if "boot_volume" not in self.after:  # made by an earlier run
                stack.show("boot_volume", "tagged" if tags == volume.freeform_tags else "untagged", "tagged")
            if tags != volume.freeform_tags and not self.check_mode:
                stack.cloud.call(
                    client.update_boot_volume, volume.id, models.UpdateBootVolumeDetails(freeform_tags=tags)
                )

    def _vnic(self, stack: oci_stack.Stack, row: Any) -> Any:
        """The instance's primary VNIC."""
        list_attachments = stack.cloud.compute(stack.region).list_vnic_attachments
        while True:
            for attachment in stack.cloud.listing(list_attachments, stack.compartment, instance_id=row.id):
                if attachment.lifecycle_state == "ATTACHED":
                    vnic = stack.cloud.call(stack.cloud.network(stack.region).get_vnic, attachment.vnic_id)
                    if vnic.is_primary:
                        stack.ledger.made("vnic", stack.region, stack.compartment, vnic.id)
                        return vnic
            state = stack.cloud.call(stack.cloud.compute(stack.region).get_instance, row.id).lifecycle_state
            if state in oci_stack.DEAD:
                raise OciError(
                    f"The instance {row.id} became {state} before it could be reached: run the same again."
                )
            if time.monotonic() >= stack.deadline:
                raise OciError(f"The instance {row.id} is {state} without a VNIC: destroy it and try again.")
            time.sleep(0.2)

    def _contact(self, stack: oci_stack.Stack, row: Any, vnic: Any) -> Any:
        """Pin the host key that the tags name, and replace it if it came with the user data."""
        tags = dict(row.freeform_tags)
        phase, keys = stack_tags.parse_host_key(tags[stack_tags.HOST_KEY])
        lines = "".join(f"{line}\n" for line in stack_tags.known_hosts_lines(tags))
        pinned = self.known_hosts.is_file() and self.known_hosts.read_text(encoding="utf-8") == lines
        if not pinned and stack.show("pin", None, "as tagged"):
            self._pin(tags)
        wanted = "rotated" if self.params["wait_for_ssh"] else phase
        if "host_key" not in self.after:  # launched by an earlier run
            stack.show("host_key", phase, wanted)
        if phase == "rotated" and not self.check_mode:
            self._forget_first_key()
        if phase == wanted or self.check_mode:
            return row
        client = stack.cloud.compute(stack.region)

        def tell(new_phase: str, new_keys: list[str]) -> None:
            """Pin the keys and publish them, unless another controller has published others since."""
            answer = stack.cloud.answer(client.get_instance, row.id)
            if answer.data.freeform_tags.get(stack_tags.HOST_KEY) != tags[stack_tags.HOST_KEY]:
                raise OciError(
                    f"Another controller is at work on {stack.name}: run the same again when it has ended."
                )
            tags[stack_tags.HOST_KEY] = stack_tags.host_key_tag(new_phase, new_keys)
            self._pin(tags)
            details = models.UpdateInstanceDetails(freeform_tags={**answer.data.freeform_tags, **tags})
            stack.cloud.call(client.update_instance, row.id, details, if_match=answer.headers.get("etag"))

        options = stack_tags.ssh_options(stack_tags.alias(tags), str(self.known_hosts))
        if private := self._private_key_file():
            options += ["-i", private, "-o", "IdentitiesOnly=yes"]

        def check_alive() -> None:
            state = stack.cloud.call(client.get_instance, row.id).lifecycle_state
            if state != "RUNNING":
                raise OciError(f"The instance {row.id} became {state} before SSH answered: run the same again.")

        self.progress.now("first contact by SSH")
        address = vnic.public_ip or vnic.private_ip
        contact = first_contact.Contact(tags[stack_tags.USER], address, options, stack.deadline, check_alive)
        # A machine that crashed in the middle may have lost its next key, and shows the old one.
        if phase == "first" or contact.finish() != keys[1]:
            contact.rotate(lambda key: tell("rotating", [keys[0], key]))
        _, keys = stack_tags.parse_host_key(tags[stack_tags.HOST_KEY])
        try:
            self._pin({**tags, stack_tags.HOST_KEY: stack_tags.host_key_tag("rotated", keys[1:])})
            contact.check()
        except first_contact.ContactError:
            self._pin(tags)  # both keys again: the next run finishes this
            raise
        tell("rotated", keys[1:])
        self._forget_first_key()
        return row

    def _forget_first_key(self) -> None:
        for path in self.folder.glob("host_key-*"):
            path.unlink()

    def _pin(self, tags: dict[str, str]) -> None:
        write_file(self.known_hosts, "".join(f"{line}\n" for line in stack_tags.known_hosts_lines(tags)))

    def _warn_of_differences(self, row: Any, wish: oci_launch.Wish) -> None:
        differences: list[tuple[str, Any, Any]] = []
        if row.shape not in wish.shapes:
            differences.append(("shape", row.shape, " or ".join(wish.shapes)))
        if wish.image_id:
            differences.append(("image_id", row.image_id, wish.image_id))
        if row.shape_config and row.shape.endswith(".Flex"):
            differences += [
                (name, there, asked)
                for name, there, asked in (
                    ("ocpus", row.shape_config.ocpus, wish.ocpus),
                    ("memory_gb", row.shape_config.memory_in_gbs, wish.memory_gb),
                )
                if asked
            ]
        if wish.availability_domains and not row.availability_domain.endswith(tuple(wish.availability_domains)):
            wanted = " or ".join(wish.availability_domains)
            differences.append(("availability_domain", row.availability_domain, wanted))
        for name, there, asked in differences:
            if there != asked:
                self.warnings.append(
                    f"The instance {row.display_name} has {name} {there}, not {asked}: it is left as it is. "
                    "Destroy the stack first to have it anew."
                )

    def _facts(self, stack: oci_stack.Stack, row: Any, vnic: Any) -> dict[str, Any]:
        tags = row.freeform_tags
        return {
            "id": row.id,
            "name": stack.name,
            "region": stack.region,
            "compartment_id": stack.compartment,
            "availability_domain": row.availability_domain,
            "shape": row.shape,
            "image_id": row.image_id,
            "lifecycle_state": row.lifecycle_state,
            "address": vnic.public_ip or vnic.private_ip,
            "public_ip": vnic.public_ip or "",
            "private_ip": vnic.private_ip,
            "user": tags[stack_tags.USER],
            "host_key_alias": stack_tags.alias(tags),
            "known_hosts": str(self.known_hosts),
            "private_key_file": self._private_key_file(),
            "expires": tags.get(stack_tags.EXPIRES, ""),
        }


def _refused(candidate: oci_launch.Candidate, kind: str, error: OciError) -> str:
    """Oracle's refusal of a try, as a sentence."""
    where = f"{candidate.shape} in {candidate.domain}"
    if error.limit:
        return error.said
    if kind == "capacity":
        return f"Oracle is out of capacity for {where}."
    if kind == "throttled":
        return f"Oracle has had too many requests from you, lately for {where}: try again in some minutes."
    if kind == "not_preemptible":
        return f"Oracle does not launch {where} as preemptible ({error}): leave preemptible out, or choose another."
    if kind == "not_found":
        return f"Oracle offers {candidate.shape}, and then does not find it: {error}"
    return str(error)


def _state(row: Any, state: str) -> dict[str, str]:
    return {"shape": row.shape, "availability_domain": row.availability_domain, "state": state}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=SPEC,
        required_if=[("state", "present", ["compartment_id"]), ("state", "stopped", ["compartment_id"])],
        supports_check_mode=True,
    )
    manager = Manager(module.params, module.check_mode)
    failure = ""
    result: dict[str, Any] = {}
    try:
        stack_tags.check_name(module.params["name"])
        if module.params["user"] is not None:
            stack_tags.check_user(module.params["user"])
        with manager.ledger:
            result = getattr(manager, module.params["state"])()
    except LedgerBusyError:
        module.fail_json(msg=f"Another run is at work on the stack {module.params['name']}: wait for it, or end it.")
    except (OciError, first_contact.ContactError, ValueError) as error:
        failure = str(error)
    except (OSError, subprocess.SubprocessError) as error:
        failure = (
            f"This controller could not do its part ({error}): look at the folder {manager.folder}, its disk, and "
            "the file that REQUESTS_CA_BUNDLE names."
        )
    if failure:
        manager.warn_of_bill()
    for warning in manager.warnings:
        module.warn(warning)
    if manager.plan:
        result["plan"] = manager.plan
    if failure:
        module.fail_json(msg=failure, resources=_resources(manager.ledger), **result)
    difference = {"before": manager.before, "after": manager.after}
    changed = manager.before != manager.after
    module.exit_json(changed=changed, diff=difference, resources=_resources(manager.ledger), **result)


def _resources(ledger: Ledger) -> list[dict[str, str]]:
    return [{name: line[name] for name in ("kind", "id", "region")} for line in ledger.standing()]


if __name__ == "__main__":
    main()
