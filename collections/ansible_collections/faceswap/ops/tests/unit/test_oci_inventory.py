"""The inventory plugin without a network: records, pins, cache. `tests/test_oci_inventory.py` has the rest."""

import doctest
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible_collections.faceswap.ops.plugins.inventory import oci as plugin
from ansible_collections.faceswap.ops.plugins.module_utils import pin_file

KEY_A, KEY_B, KEY_C = ("AAAAC3NzaC1lZDI1NTE5AAAAI" + letter * 43 for letter in "abc")
RUN = "0123456789ab"
ROOT, OURS = "ocid1.tenancy.oc1..root", "ocid1.compartment.oc1..ours"


def tags(name: str = "demo", run: str = RUN, key: str = f"first:{KEY_A}", **changes: str | None) -> dict[str, str]:
    every = {
        "faceswap-stack": name,
        "faceswap-run": run,
        "faceswap-owner": "anna",
        "faceswap-expires": "2026-11-23T10:00:00Z",
        "faceswap-user": "ubuntu",
        "faceswap-host-key": key,
        **{f"faceswap-{tag.replace('_', '-')}": value for tag, value in changes.items()},
    }
    return {tag: value for tag, value in every.items() if value is not None}


def instance(name: str = "demo", region: str = "us-ashburn-1", **changes: Any) -> plugin.Instance:
    values: dict[str, Any] = {
        "id": f"ocid1.instance.oc1..{name}.{region}",
        "region": region,
        "compartment_id": OURS,
        "availability_domain": "Uocm:AD-1",
        "shape": "VM.GPU.A10.1",
        "lifecycle_state": "RUNNING",
        "preemptible": False,
        "address": "198.51.100.7",
        "tags": tags(name),
    }
    return cast(plugin.Instance, {**values, **changes})


class ErrorDouble(Exception):  # noqa: N818 - a double, and called one
    """In the place of OciError."""

    def __init__(self, sentence: str, status: int | None) -> None:
        super().__init__(sentence)
        self.status = status


class CloudDouble:
    """In the place of a Cloud: `rows` are the instances as the SDK's models; a string instead is a refusal."""

    def __init__(self, rows: dict[tuple[str, str], Any], vnics: dict[str, list[SimpleNamespace]]) -> None:
        self.rows = rows
        self.vnics = vnics
        self.asked: list[tuple[str, str]] = []

    def regions(self) -> list[str]:
        return list(dict.fromkeys(region for region, _ in self.rows))

    def compartments(self) -> list[str]:
        return list(dict.fromkeys(compartment for _, compartment in self.rows))

    def compute(self, region: str) -> Any:
        def list_instances(compartment: str) -> Any:
            self.asked.append((region, compartment))
            return self.rows.get((region, compartment), [])

        def list_vnic_attachments(compartment: str, instance_id: str) -> Any:
            assert compartment == OURS
            return [
                SimpleNamespace(vnic_id=(instance_id, number), lifecycle_state=vnic.attachment)
                for number, vnic in enumerate(self.vnics[instance_id])
            ]

        return SimpleNamespace(list_instances=list_instances, list_vnic_attachments=list_vnic_attachments)

    def network(self, region: str) -> Any:
        return SimpleNamespace(get_vnic=lambda vnic_id: self.vnics[vnic_id[0]][vnic_id[1]])

    def listing(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        answer = method(*args, **kwargs)
        if isinstance(answer, int):
            raise ErrorDouble("Not authorized or not found: add the policy.", answer)
        return answer

    def call(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        vnic = method(*args, **kwargs)
        if vnic.gone:
            raise ErrorDouble("Not authorized or not found.", 404)
        return vnic


def model(name: str, state: str = "RUNNING", **changes: Any) -> SimpleNamespace:
    values = {
        "id": f"ocid1.instance.oc1..{name}",
        "compartment_id": OURS,
        "availability_domain": "Uocm:AD-1",
        "shape": "VM.GPU.A10.1",
        "lifecycle_state": state,
        "preemptible_instance_config": None,
        "freeform_tags": {**tags(name), "team": "red"},
    }
    return SimpleNamespace(**{**values, **changes})


def vnic(private: str, public: str | None = None, primary: bool = True, **changes: Any) -> SimpleNamespace:
    values = {"attachment": "ATTACHED", "gone": False, "is_primary": primary}
    return SimpleNamespace(**{**values, "private_ip": private, "public_ip": public, **changes})


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> CloudDouble:
    """One instance in the second region and a compartment that refuses; `connect` gives this and counts."""
    rows = {
        ("us-ashburn-1", ROOT): 404,
        ("us-ashburn-1", OURS): [],
        ("eu-frankfurt-1", ROOT): 404,
        ("eu-frankfurt-1", OURS): [model("demo")],
    }
    double = CloudDouble(rows, {"ocid1.instance.oc1..demo": [vnic("10.20.0.2", "198.51.100.7")]})
    client = ModuleType("oci_client_double")
    client.OciError = ErrorDouble  # type: ignore[attr-defined]
    client.connect = lambda *_: double  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ansible_collections.faceswap.ops.plugins.module_utils.oci_client", client)
    return double


class Read:
    """The plugin with options given, as ansible-core would read them from a file."""

    def __init__(self, state_dir: Path, **options: Any) -> None:
        self.options = {
            "config_file": "~/.oci/config",
            "profile": "DEFAULT",
            "auth": "api_key",
            "compartments": [],
            "regions": [],
            "state_dir": str(state_dir),
            "ssh_private_key_file": None,
            "group": "faceswap",
            "cache": False,
            "strict": True,
            "compose": {},
            "groups": {},
            "keyed_groups": [],
            "use_extra_vars": False,
            **options,
        }
        self.cache: dict[str, Any] = {}
        self.warnings: list[str] = []

    def __call__(self, cache: bool = True) -> InventoryData:
        read = plugin.InventoryModule()
        read.get_option = self.options.__getitem__
        read._read_config_data = lambda path: None
        read.ansible_name = plugin.InventoryModule.NAME
        read._cache = self.cache
        read.display = SimpleNamespace(warning=self.warnings.append)
        inventory = InventoryData()
        read.parse(inventory, None, "/somewhere/x.oci.yml", cache)
        return inventory


def test_the_examples_of_the_pin_file_hold() -> None:
    assert doctest.testmod(pin_file).failed == 0


def test_a_host_has_all_that_a_pinned_connection_needs() -> None:
    (host,), warnings = plugin.host_records([instance()], Path("/state dir"))
    assert not warnings
    assert (host.name, host.alias, host.running) == ("demo", f"demo.{RUN}", True)
    assert host.pins == [f"demo.{RUN} ssh-ed25519 {KEY_A}"]
    assert host.variables["ansible_host"] == "198.51.100.7"
    assert host.variables["ansible_user"] == "ubuntu"
    args = host.variables["ansible_ssh_common_args"]
    assert f"HostKeyAlias=demo.{RUN}" in args and "/state dir/demo/known_hosts" in args
    assert "StrictHostKeyChecking=yes" in args
    assert host.variables["oci_instance_info"] == {
        "id": "ocid1.instance.oc1..demo.us-ashburn-1",
        "region": "us-ashburn-1",
        "compartment_id": OURS,
        "availability_domain": "Uocm:AD-1",
        "shape": "VM.GPU.A10.1",
        "lifecycle_state": "RUNNING",
        "preemptible": False,
        "expires": "2026-11-23T10:00:00Z",
        "run": RUN,
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tags": tags(host_key=None)}, "faceswap-host-key is missing"),
        ({"tags": tags(key="first:AAAA")}, "faceswap-host-key is malformed"),
        ({"tags": tags(key=f"rotating:{KEY_A}")}, "faceswap-host-key is malformed"),
        ({"tags": tags(run=None)}, "faceswap-run is missing"),  # type: ignore[arg-type]
        ({"tags": tags(run="x -o ProxyCommand=evil")}, "faceswap-run is malformed"),
        ({"tags": tags(user="-oProxyCommand=evil")}, "faceswap-user is malformed"),
        ({"tags": tags(user=None)}, "faceswap-user is missing"),
        ({"tags": tags(name="../../.ssh")}, "faceswap-stack is malformed"),
        ({"tags": tags(name="a\nb")}, "faceswap-stack is malformed"),
        ({"address": None}, "it has no address"),
    ],
)
def test_what_cannot_be_pinned_or_reached_is_left_out_and_said(change: dict[str, Any], said: str) -> None:
    hosts, (warning,) = plugin.host_records([instance(**change)], Path("/state"))
    assert not hosts
    assert said in warning and "ocid1.instance.oc1..demo.us-ashburn-1" in warning


def test_the_same_name_twice_gets_its_region_then_its_run() -> None:
    twins = [
        instance(),
        instance(region="eu-frankfurt-1", tags=tags(run="a" * 12)),
        instance(region="eu-frankfurt-1", tags=tags(run="b" * 12), id="ocid1.third"),
    ]
    hosts, warnings = plugin.host_records(twins, Path("/state"))
    assert [host.name for host in hosts] == ["demo", "demo.eu-frankfurt-1", f"demo.{'b' * 12}"]
    assert len({host.alias for host in hosts}) == 3
    assert "demo.eu-frankfurt-1 is ocid1.instance.oc1..demo.eu-frankfurt-1" in warnings[0]
    assert "ocid1.third" in warnings[1]


def test_an_instance_with_copied_tags_cannot_take_the_pin_of_the_first() -> None:
    hosts, (warning,) = plugin.host_records(
        [instance(), instance(region="eu-frankfurt-1", tags=tags(key=f"first:{KEY_B}"))], Path("/state")
    )
    assert [host.pins for host in hosts] == [[f"demo.{RUN} ssh-ed25519 {KEY_A}"]]
    assert "are those of another instance" in warning


def test_hosts_are_in_the_group_or_stopped(cloud: CloudDouble, tmp_path: Path) -> None:
    cloud.rows["us-ashburn-1", OURS] = [
        model("off", "STOPPED"),
        model("dead", "TERMINATED"),
        model("end", "TERMINATING"),
    ]
    cloud.vnics["ocid1.instance.oc1..off"] = [vnic("10.20.0.3")]
    inventory = Read(tmp_path, group="swap")()
    groups = inventory.get_groups_dict()
    assert groups["swap"] == ["demo"] and groups["oci_stopped"] == ["off"]
    assert sorted(inventory.hosts) == ["demo", "off"]


def test_only_marked_instances_and_only_our_tags_are_kept(cloud: CloudDouble) -> None:
    cloud.rows["us-ashburn-1", OURS] = [
        model("foreign", freeform_tags={"team": "red"}),
        model("untagged", freeform_tags=None),
    ]
    (found,) = plugin.find_instances(cloud, [], [])
    assert found["tags"] == tags("demo")
    assert found == json.loads(json.dumps(found))


def test_it_says_what_is_preemptible(cloud: CloudDouble) -> None:
    cloud.rows["us-ashburn-1", OURS] = [model("demo", preemptible_instance_config=SimpleNamespace())]
    assert [found["preemptible"] for found in plugin.find_instances(cloud, [], [])] == [True, False]


@pytest.mark.parametrize(
    ("vnics", "address"),
    [
        ([vnic("10.0.0.9", "203.0.113.9", primary=False), vnic("10.0.0.2", "203.0.113.2")], "203.0.113.2"),
        ([vnic("10.0.0.2")], "10.0.0.2"),
        ([vnic("10.0.0.1", gone=True), vnic("10.0.0.2")], "10.0.0.2"),
        ([vnic("10.0.0.1", attachment="DETACHED"), vnic("10.0.0.2")], "10.0.0.2"),
        ([], None),
    ],
)
def test_the_address_is_the_primary_vnics(cloud: CloudDouble, vnics: list[Any], address: str | None) -> None:
    cloud.vnics["ocid1.instance.oc1..demo"] = vnics
    (found,) = plugin.find_instances(cloud, [], [])
    assert found["address"] == address


def test_an_empty_tenancy_is_an_empty_inventory(cloud: CloudDouble, tmp_path: Path) -> None:
    cloud.rows["eu-frankfurt-1", OURS] = []
    read = Read(tmp_path)
    assert read().get_groups_dict()["faceswap"] == [] and not read.warnings
    assert list(tmp_path.iterdir()) == []


def test_a_compartment_that_was_named_must_answer(cloud: CloudDouble, tmp_path: Path) -> None:
    with pytest.raises(AnsibleParserError, match=r"^Not authorized or not found: add the policy\.$"):
        Read(tmp_path, compartments=[OURS, ROOT])()
    assert Read(tmp_path, compartments=[OURS], regions=["eu-frankfurt-1"])().get_host("demo")
    assert cloud.asked[-1] == ("eu-frankfurt-1", OURS)


def test_refused_everywhere_is_an_error_and_not_an_empty_tenancy(cloud: CloudDouble, tmp_path: Path) -> None:
    cloud.rows = dict.fromkeys(cloud.rows, 404)
    with pytest.raises(AnsibleParserError, match="add the policy"):
        Read(tmp_path)()


def test_another_error_than_a_refusal_is_never_passed_over(cloud: CloudDouble, tmp_path: Path) -> None:
    cloud.rows["us-ashburn-1", ROOT] = 500
    with pytest.raises(AnsibleParserError):
        Read(tmp_path)()


def test_the_cache_is_plain_data_and_spares_the_cloud(cloud: CloudDouble, tmp_path: Path) -> None:
    read = Read(tmp_path / "one", cache=True)
    first = read()
    asked = len(cloud.asked)
    assert read.cache == json.loads(json.dumps(read.cache))
    read.options["state_dir"] = str(tmp_path / "two")
    sys.modules["ansible_collections.faceswap.ops.plugins.module_utils.oci_client"].connect = None  # type: ignore[attr-defined]
    second = read()
    assert len(cloud.asked) == asked
    assert second.get_host("demo").vars["ansible_host"] == first.get_host("demo").vars["ansible_host"]
    assert (tmp_path / "two/demo/known_hosts").read_text() == f"demo.{RUN} ssh-ed25519 {KEY_A}\n"


def test_refresh_asks_again_and_updates_the_cache(cloud: CloudDouble, tmp_path: Path) -> None:
    read = Read(tmp_path, cache=True)
    read()
    cloud.rows["eu-frankfurt-1", OURS] = []
    assert read().get_host("demo")
    assert read(cache=False).get_host("demo") is None
    assert read().get_host("demo") is None


def test_an_empty_answer_is_cached_too(cloud: CloudDouble, tmp_path: Path) -> None:
    cloud.rows["eu-frankfurt-1", OURS] = []
    read = Read(tmp_path, cache=True)
    read()
    asked = len(cloud.asked)
    read()
    assert len(cloud.asked) == asked


def test_another_profile_does_not_get_this_ones_cache(cloud: CloudDouble, tmp_path: Path) -> None:
    read = Read(tmp_path, cache=True)
    read()
    cloud.rows["eu-frankfurt-1", OURS] = []
    read.options["profile"] = "OTHER"
    assert read().get_host("demo") is None


def test_the_pin_is_private_and_written_only_when_it_changes(cloud: CloudDouble, tmp_path: Path) -> None:
    read = Read(tmp_path / "state")
    read()
    pin = tmp_path / "state/demo/known_hosts"
    assert pin.stat().st_mode & 0o777 == 0o600 and pin.parent.stat().st_mode & 0o777 == 0o700
    os.utime(pin, (1, 1))
    before = pin.stat()
    read()
    assert (pin.stat().st_ino, pin.stat().st_mtime) == (before.st_ino, 1)
    assert [path.name for path in pin.parent.iterdir()] == ["known_hosts"]


@pytest.mark.parametrize(
    ("tag", "keys", "warned"),
    [
        (f"rotating:{KEY_A},{KEY_B}", [KEY_A, KEY_B], False),
        (f"rotated:{KEY_B}", [KEY_B], True),
        (f"first:{KEY_C}", [KEY_C], True),
    ],
)
def test_the_tag_wins_and_a_key_never_seen_is_said(
    cloud: CloudDouble, tmp_path: Path, tag: str, keys: list[str], warned: bool
) -> None:
    read = Read(tmp_path)
    read()
    cloud.rows["eu-frankfurt-1", OURS] = [model("demo", freeform_tags=tags(key=tag))]
    read()
    text = "".join(f"demo.{RUN} ssh-ed25519 {key}\n" for key in keys)
    assert (tmp_path / "demo/known_hosts").read_text() == text
    assert [f"The host key of demo.{RUN} changed" in warning for warning in read.warnings] == [True] * warned


def test_the_cache_never_takes_back_a_newer_pin(cloud: CloudDouble, tmp_path: Path) -> None:
    read = Read(tmp_path, cache=True)
    read()
    newer = f"demo.{RUN} ssh-ed25519 {KEY_B}\n"
    (tmp_path / "demo/known_hosts").write_text(newer)
    read()
    assert (tmp_path / "demo/known_hosts").read_text() == newer and not read.warnings
    (tmp_path / "demo/known_hosts").unlink()
    read()
    assert (tmp_path / "demo/known_hosts").exists()


def test_the_pin_of_an_instance_that_another_process_just_makes_stays(cloud: CloudDouble, tmp_path: Path) -> None:
    other = f"demo.{'c' * 12} ssh-ed25519 {KEY_C}\n"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/known_hosts").write_text(other)
    Read(tmp_path)()
    assert (tmp_path / "demo/known_hosts").read_text() == other + f"demo.{RUN} ssh-ed25519 {KEY_A}\n"


def test_a_state_folder_that_cannot_be_written_is_one_sentence(cloud: CloudDouble, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AnsibleParserError, match="set state_dir to a folder that you may write"):
        Read(tmp_path / "file")()


def test_a_pin_that_failed_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        pin_file.pin(tmp_path / "known_hosts", {"demo.1": ["demo.1 ssh-ed25519 x"]})
    assert list(tmp_path.iterdir()) == []


def test_the_login_key_is_the_stacks_own_or_the_one_given(cloud: CloudDouble, tmp_path: Path) -> None:
    read = Read(tmp_path)
    assert "ansible_ssh_private_key_file" not in read().get_host("demo").vars
    (tmp_path / "demo/id_ed25519").touch()
    assert read().get_host("demo").vars["ansible_ssh_private_key_file"] == str(tmp_path / "demo/id_ed25519")
    read.options["ssh_private_key_file"] = "/keys/mine"
    assert read().get_host("demo").vars["ansible_ssh_private_key_file"] == "/keys/mine"


def test_only_files_with_its_name_are_read(tmp_path: Path) -> None:
    for name, wanted in (("hosts.oci.yml", True), ("oci.yaml", True), ("hosts.yml", False)):
        (tmp_path / name).touch()
        assert plugin.InventoryModule().verify_file(str(tmp_path / name)) is wanted
