"""The emulator of the OCI API, asked by the real SDK through its real host names, and by hand-made requests."""

import base64
import email.utils
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from emulated_cloud import EmulatedCloud, emulated_cloud
from oci_emulator.guest import what_is_missing

oci = pytest.importorskip("oci", reason="needs Oracle's SDK: pip install oci")

REGION, OTHER = "us-ashburn-1", "eu-frankfurt-1"
needs_machines = pytest.mark.skipif(bool(what_is_missing()), reason=f"an instance that answers: {what_is_missing()}")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedCloud]:
    with pytest.MonkeyPatch.context() as patch, emulated_cloud(tmp_path_factory.mktemp("cloud"), waiting=0.1) as made:
        for name in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("OCI_")]:
            patch.delenv(name)
        for name, value in made.env.items():
            patch.setenv(name, value)
        yield made


@pytest.fixture(autouse=True)
def nothing_wrong(request: pytest.FixtureRequest) -> None:
    """Each test begins without faults, with every right, and with large pages."""
    if "cloud" in request.fixturenames:
        made: EmulatedCloud = request.getfixturevalue("cloud")
        made.post("faults", [])
        made.post("policy", {})
        made.post("settings", {"page_size": 1000, "empty_first_page": False, "waiting": 0.1})


def clients(cloud: EmulatedCloud, profile: str = "DEFAULT", region: str = REGION) -> SimpleNamespace:
    """The SDK's clients with one of the emulator's profiles."""
    config = oci.config.from_file(str(cloud.state / "config"), profile) | {"region": region}
    options: dict[str, Any] = {}
    if "security_token_file" in config:
        key = oci.signer.load_private_key_from_file(config["key_file"])
        token = Path(config["security_token_file"]).read_text()
        options["signer"] = oci.auth.signers.SecurityTokenSigner(token, key)
    return SimpleNamespace(
        compute=oci.core.ComputeClient(config, **options),
        network=oci.core.VirtualNetworkClient(config, **options),
        storage=oci.core.BlockstorageClient(config, **options),
        identity=oci.identity.IdentityClient(config, **options),
        work=oci.work_requests.WorkRequestClient(config, **options),
    )


@pytest.fixture(scope="module")
def at(cloud: EmulatedCloud) -> SimpleNamespace:
    return clients(cloud)


def refused(status: int, code: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The message of the refusal with which a call has to end."""
    with pytest.raises(oci.exceptions.ServiceError) as caught:
        call(*args, **kwargs)
    assert (caught.value.status, caught.value.code) == (status, code), caught.value.message
    return str(caught.value.message)


def until(state: str, get: Callable[..., Any], identity: str) -> Any:
    """Ask until the resource is in this state."""
    end = time.monotonic() + 20
    while (found := get(identity).data).lifecycle_state != state:
        assert time.monotonic() < end, f"still {found.lifecycle_state}, not {state}"
        time.sleep(0.01)
    return found


def model(name: str, **values: Any) -> Any:
    return getattr(oci.core.models, name)(**values)


def make_vcn(cloud: EmulatedCloud, at: SimpleNamespace, name: str = "net") -> Any:
    details = model(
        "CreateVcnDetails", compartment_id=cloud.compartment, cidr_block="10.20.0.0/16", display_name=name
    )
    return until("AVAILABLE", at.network.get_vcn, at.network.create_vcn(details).data.id)


def make_subnet(cloud: EmulatedCloud, at: SimpleNamespace, vcn: Any, **more: Any) -> Any:
    values = {"compartment_id": cloud.compartment, "vcn_id": vcn.id, "cidr_block": "10.20.0.0/24"} | more
    made = at.network.create_subnet(model("CreateSubnetDetails", **values)).data
    return until("AVAILABLE", at.network.get_subnet, made.id)


@pytest.fixture(scope="module")
def subnet(cloud: EmulatedCloud, at: SimpleNamespace) -> Any:
    return make_subnet(cloud, at, make_vcn(cloud, at))


def launch_details(cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any, **more: Any) -> Any:
    image = at.compute.list_images(
        cloud.compartment, operating_system="Canonical Ubuntu", operating_system_version="24.04", shape="VM.GPU.A10.1"
    ).data[0]
    vnic = more.pop("vnic", {})
    values: dict[str, Any] = {
        "compartment_id": cloud.compartment,
        "availability_domain": "Uocm:US-ASHBURN-AD-2",
        "shape": "VM.GPU.A10.1",
        "display_name": "machine",
        "source_details": model("InstanceSourceViaImageDetails", image_id=image.id, boot_volume_size_in_gbs=60),
        "create_vnic_details": model("CreateVnicDetails", **({"subnet_id": subnet.id} | vnic)),
    }
    return model("LaunchInstanceDetails", **(values | more))


def row(cloud: EmulatedCloud, identity: str) -> Any:
    """What the emulator's own ledger says of a resource."""
    return next(found for found in cloud.ledger()["resources"] if found["id"] == identity)


# Signatures


def send(cloud: EmulatedCloud, change: dict[str, Any] | None = None) -> tuple[int, dict[str, str]]:
    """A CreateVcn signed by the SDK's signer, changed afterwards: `body` (old, new text), `path`, a header."""
    change = dict(change or {})
    host, path = f"iaas.{REGION}.oraclecloud.com", "/20160918/vcns"
    body = json.dumps({"compartmentId": cloud.compartment, "cidrBlock": "10.0.0.0/16", "displayName": "by hand"})
    config = oci.config.from_file(str(cloud.state / "config"))
    signer = oci.signer.Signer(
        *(config[name] for name in ("tenancy", "user", "fingerprint")), private_key_file_location=config["key_file"]
    )
    request = oci._vendor.requests.Request("POST", f"https://{host}{path}", data=body, auth=signer)
    request.headers["date"] = change.pop("date", email.utils.formatdate(usegmt=True))
    headers = dict(request.prepare().headers)
    body, path = body.replace(*change.pop("body", ("", ""))), change.pop("path", path)
    headers = {name: value for name, value in {**headers, **change}.items() if value is not None}
    context = ssl.create_default_context(cafile=cloud.env["SSL_CERT_FILE"])
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    connection = http.client.HTTPSConnection("127.0.0.1", cloud.ready["port"], context=context)
    connection.set_tunnel(host, 443)
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    assert answer.headers["opc-request-id"] and answer.headers["date"]
    result: dict[str, str] = json.loads(answer.read())
    connection.close()
    return answer.status, result


def test_a_request_signed_by_the_sdk_is_accepted(cloud: EmulatedCloud) -> None:
    assert send(cloud)[0] == 200


@pytest.mark.parametrize(
    "change",
    [
        {"body": ("by hand", "by hook")},
        {"path": "/20160918/vcns?limit=1"},
        {"authorization": None},
        {"authorization": 'Signature version="1",keyId="a/b",algorithm="rsa-sha256",headers="date",signature="eA=="'},
        {"x-content-sha256": base64.b64encode(bytes(32)).decode()},
        {"date": email.utils.formatdate(0, usegmt=True)},
    ],
    ids=["body", "query", "none", "stranger", "digest", "date of 1970"],
)
def test_a_request_that_was_tampered_with_is_refused(cloud: EmulatedCloud, change: dict[str, Any]) -> None:
    before = len(cloud.ledger()["resources"])
    status, answer = send(cloud, change)
    assert (status, answer["code"]) == (401, "NotAuthenticated")
    assert len(cloud.ledger()["resources"]) == before


def test_an_old_date_with_a_good_signature_is_refused_with_the_clock_named(cloud: EmulatedCloud) -> None:
    status, answer = send(cloud, {"date": email.utils.formatdate(time.time() - 600, usegmt=True)})
    assert status == 401 and "allowed clock skew" in answer["message"]


def test_profiles(cloud: EmulatedCloud) -> None:
    assert clients(cloud, "TOKEN").identity.list_availability_domains(cloud.compartment).data
    for profile in ("WRONGKEY", "EXPIRED"):
        refused(401, "NotAuthenticated", clients(cloud, profile).identity.get_tenancy, cloud.tenancy)


def test_an_instance_principal(cloud: EmulatedCloud) -> None:
    signer = oci.auth.signers.InstancePrincipalsSecurityTokenSigner()
    assert (signer.tenancy_id, signer.region) == (cloud.tenancy, REGION)
    client = oci.identity.IdentityClient({"region": REGION}, signer=signer)
    assert client.get_tenancy(cloud.tenancy).data.id == cloud.tenancy
    url = cloud.env["OCI_METADATA_BASE_URL"] + "/identity/key.pem"
    assert oci._vendor.requests.get(url).status_code == 404, "the key needs the header of version 2"


def test_a_region_that_is_not_subscribed_knows_nobody(cloud: EmulatedCloud) -> None:
    stranger = clients(cloud, region="uk-london-1")
    refused(401, "NotAuthenticated", stranger.identity.list_availability_domains, cloud.compartment)


def test_nothing_is_passed_on(cloud: EmulatedCloud) -> None:
    with socket.create_connection(("127.0.0.1", cloud.ready["port"])) as connection:
        connection.sendall(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 403")


# Bodies and queries


def test_what_the_models_do_not_know_is_refused(cloud: EmulatedCloud, at: SimpleNamespace) -> None:
    call, json_type = at.network.base_client.call_api, {"content-type": "application/json"}
    good = {"compartmentId": cloud.compartment, "cidrBlock": "10.0.0.0/16"}
    for code, body in {
        "CannotParseRequest": good | {"colour": "blue"},
        "MissingParameter": {"cidrBlock": "10.0.0.0/16"},
        "InvalidParameter": good | {"cidrBlock": "10.0.0.0/8"},
    }.items():
        refused(400, code, call, resource_path="/vcns", method="POST", body=body, header_params=json_type)
    refused(400, "InvalidParameter", call, resource_path="/vcns", method="GET", header_params=json_type,
            query_params={"compartmentId": cloud.compartment, "colour": "blue"})  # fmt: skip
    refused(
        400, "MissingParameter", call, resource_path="/vcns", method="GET", header_params=json_type, query_params={}
    )
    refused(404, "NotFound", call, resource_path="/moons", method="GET", header_params=json_type)
    refused(404, "NotAuthorizedOrNotFound", at.network.list_vcns, "ocid1.compartment.oc1..nowhere")


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"shape": None}, 400, "MissingParameter"),
        ({"source_details": None}, 400, "MissingParameter"),
        ({"vnic": {"subnet_id": None}}, 400, "MissingParameter"),
        ({"availability_domain": "Uocm:US-ASHBURN-AD-1"}, 404, "NotAuthorizedOrNotFound"),
        ({"availability_domain": "Uocm:MOON-AD-1"}, 400, "InvalidParameter"),
        ({"shape": "VM.Standard.E5.Flex"}, 400, "MissingParameter"),
        ({"shape": "VM.Standard.A1.Flex", "shape_config": {"ocpus": 1}}, 400, "InvalidParameter"),
        ({"shape_config": {"ocpus": 1}}, 400, "InvalidParameter"),
        ({"metadata": {"user_data": "A" * 16388}}, 400, "InvalidParameter"),
        ({"metadata": {"user_data": "no base64"}}, 400, "InvalidParameter"),
        ({"metadata": {"note": "x" * 256}}, 400, "InvalidParameter"),
        ({"freeform_tags": {"long": "x" * 257}}, 400, "InvalidParameter"),
        ({"vnic": {"nsg_ids": ["ocid1.networksecuritygroup.oc1.iad.none"]}}, 404, "NotAuthorizedOrNotFound"),
    ],
)
def test_a_launch_that_the_cloud_refuses(
    cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any, more: dict[str, Any], status: int, code: str
) -> None:
    if "shape_config" in more:
        more = more | {"shape_config": model("LaunchInstanceShapeConfigDetails", **more["shape_config"])}
    before = cloud.ledger()["launched"]
    refused(status, code, at.compute.launch_instance, launch_details(cloud, at, subnet, **more))
    assert cloud.ledger()["launched"] == before


def test_the_boot_volume_has_a_smallest_size(cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any) -> None:
    details = launch_details(cloud, at, subnet)
    details.source_details.boot_volume_size_in_gbs = 49
    assert "from 50 to" in refused(400, "InvalidParameter", at.compute.launch_instance, details)


def test_subnets_must_fit_into_their_network(cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any) -> None:
    for block, words in {"10.20.0.128/25": "overlaps with this CIDR", "10.21.0.0/24": "not within"}.items():
        details = model(
            "CreateSubnetDetails", compartment_id=cloud.compartment, vcn_id=subnet.vcn_id, cidr_block=block
        )
        assert words in refused(400, "InvalidParameter", at.network.create_subnet, details)


def test_a_private_subnet_gives_no_public_address(cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any) -> None:
    vcn = at.network.get_vcn(subnet.vcn_id).data
    private = make_subnet(cloud, at, vcn, cidr_block="10.20.1.0/24", prohibit_public_ip_on_vnic=True)
    details = launch_details(cloud, at, private, vnic={"assign_public_ip": True})
    refused(400, "InvalidParameter", at.compute.launch_instance, details)


# Lists


def test_pages(cloud: EmulatedCloud, at: SimpleNamespace) -> None:
    whole = [image.id for image in at.compute.list_images(cloud.compartment).data]
    cloud.post("settings", {"page_size": 4, "empty_first_page": True})
    first = at.compute.list_images(cloud.compartment)
    assert first.data == [] and first.has_next_page
    paged = oci.pagination.list_call_get_all_results(at.compute.list_images, cloud.compartment).data
    assert [image.id for image in paged] == whole and len(whole) > 8
    refused(400, "InvalidParameter", at.network.list_vcns, cloud.compartment, page=first.next_page)


def test_images_and_shapes_fit_together(cloud: EmulatedCloud, at: SimpleNamespace) -> None:
    domains = [domain.name for domain in at.identity.list_availability_domains(cloud.compartment).data]
    offers = [at.compute.list_shapes(cloud.compartment, availability_domain=name).data for name in domains]
    assert ["VM.GPU.A10.1" in {shape.shape for shape in offer} for offer in offers] == [False, True, True]
    images = at.compute.list_images(cloud.compartment, operating_system="Oracle Linux", shape="VM.GPU.A10.1").data
    assert images and all("GPU" in image.display_name for image in images)
    dates = [image.time_created for image in images]
    assert dates == sorted(dates, reverse=True)


# Retry tokens, etags, faults, policies


def test_a_retry_token_launches_once(cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any) -> None:
    details = launch_details(cloud, at, subnet, freeform_tags={"a": "b"})
    cloud.post("faults", [{"operation": "LaunchInstance", "effect": "after", "drop": True}])
    before = cloud.ledger()["launched"]
    with pytest.raises(oci.exceptions.RequestException):
        at.compute.launch_instance(details, opc_retry_token="once")
    assert cloud.ledger()["launched"] == before + 1
    instance = at.compute.launch_instance(details, opc_retry_token="once").data
    assert cloud.ledger()["launched"] == before + 1
    other = launch_details(cloud, at, subnet, display_name="another")
    refused(409, "InvalidatedRetryToken", at.compute.launch_instance, other, opc_retry_token="once")
    until("RUNNING", at.compute.get_instance, instance.id)
    at.compute.terminate_instance(instance.id)
    refused(409, "InvalidatedRetryToken", at.compute.launch_instance, details, opc_retry_token="once")
    refused(400, "InvalidParameter", at.compute.launch_instance, details, opc_retry_token="x" * 65)


def test_if_match(cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any) -> None:
    old = at.network.get_subnet(subnet.id).headers["etag"]
    change = model("UpdateSubnetDetails", display_name="renamed")
    new = at.network.update_subnet(subnet.id, change, if_match=old).headers["etag"]
    assert new != old
    refused(412, "NoEtagMatch", at.network.update_subnet, subnet.id, change, if_match=old)


def test_faults_come_when_asked_for(cloud: EmulatedCloud, at: SimpleNamespace) -> None:
    cloud.post(
        "faults",
        [
            {
                "operation": "ListVcns",
                "skip": 1,
                "times": 2,
                "status": 429,
                "code": "TooManyRequests",
                "message": "slow",
            }
        ],
    )
    seen = []
    for _ in range(4):
        try:
            seen.append(at.network.list_vcns(cloud.compartment, retry_strategy=oci.retry.NoneRetryStrategy()).status)
        except oci.exceptions.ServiceError as error:
            seen.append(error.status)
    assert seen == [200, 429, 429, 200]
    assert [entry["status"] for entry in cloud.requests() if entry["operation"] == "ListVcns"][-4:] == seen


def test_capacity_may_be_lacking_later(cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any) -> None:
    cloud.post("faults", [{"operation": "LaunchInstance", "work_request_fails": "Out of host capacity."}])
    answer = at.compute.launch_instance(launch_details(cloud, at, subnet))
    until("TERMINATED", at.compute.get_instance, answer.data.id)
    request = answer.headers["opc-work-request-id"]
    assert at.work.get_work_request(request).data.status == "FAILED"
    assert [error.message for error in at.work.list_work_request_errors(request).data] == ["Out of host capacity."]
    assert row(cloud, answer.data.id)["hourly"] == 0


def test_a_missing_right_is_answered_like_a_missing_thing(cloud: EmulatedCloud, at: SimpleNamespace) -> None:
    cloud.post("policy", {"denied": ["manage virtual-network-family"]})
    assert at.network.list_vcns(cloud.compartment).data is not None
    details = model("CreateVcnDetails", compartment_id=cloud.compartment, cidr_block="10.0.0.0/16")
    refused(404, "NotAuthorizedOrNotFound", at.network.create_vcn, details)
    cloud.post("policy", {"granted": ["inspect virtual-network-family"]})
    refused(404, "NotAuthorizedOrNotFound", at.compute.list_instances, cloud.compartment)


# Life and end


def test_regions_are_apart(cloud: EmulatedCloud, at: SimpleNamespace) -> None:
    far = clients(cloud, region=OTHER)
    vcn = make_vcn(cloud, far, "far away")
    refused(404, "NotAuthorizedOrNotFound", at.network.get_vcn, vcn.id)
    assert "far away" not in {found.display_name for found in at.network.list_vcns(cloud.compartment).data}
    names = [region.region_name for region in at.identity.list_region_subscriptions(cloud.tenancy).data]
    assert names[:2] == [REGION, OTHER]


def test_a_network_goes_only_in_the_right_order(cloud: EmulatedCloud, at: SimpleNamespace) -> None:
    cloud.post("settings", {"waiting": 1})
    network, compartment = at.network, cloud.compartment
    vcn = make_vcn(cloud, at, "ordered")
    common = {"compartment_id": compartment, "vcn_id": vcn.id}
    gateway = network.create_internet_gateway(model("CreateInternetGatewayDetails", is_enabled=True, **common)).data
    refused(400, "LimitExceeded", network.create_internet_gateway,
            model("CreateInternetGatewayDetails", is_enabled=True, **common))  # fmt: skip
    until("AVAILABLE", network.get_internet_gateway, gateway.id)
    out = model("RouteRule", network_entity_id=gateway.id, destination="0.0.0.0/0", destination_type="CIDR_BLOCK")
    table = network.create_route_table(model("CreateRouteTableDetails", route_rules=[out], **common)).data
    refused(409, "IncorrectState", network.delete_route_table, table.id)
    until("AVAILABLE", network.get_route_table, table.id)
    group = network.create_network_security_group(model("CreateNetworkSecurityGroupDetails", **common)).data
    until("AVAILABLE", network.get_network_security_group, group.id)
    subnet = make_subnet(cloud, at, vcn, route_table_id=table.id)
    vnic = {"nsg_ids": [group.id]}
    instance = at.compute.launch_instance(launch_details(cloud, at, subnet, vnic=vnic)).data
    until("RUNNING", at.compute.get_instance, instance.id)
    assert row(cloud, instance.id)["hourly"] == 2.0
    volume = at.compute.list_boot_volume_attachments(
        instance.availability_domain, compartment, instance_id=instance.id
    ).data[0]
    assert row(cloud, volume.boot_volume_id)["tags"] == {}
    refused(409, "Conflict", at.storage.delete_boot_volume, volume.boot_volume_id)

    refused(409, "Conflict", network.delete_internet_gateway, gateway.id)
    refused(409, "Conflict", network.delete_route_table, table.id)
    refused(409, "Conflict", network.delete_network_security_group, group.id)
    refused(409, "Conflict", network.delete_vcn, vcn.id)
    refused(409, "Conflict", network.delete_security_list, vcn.default_security_list_id)
    at.compute.terminate_instance(instance.id)
    until("TERMINATED", at.compute.get_instance, instance.id)
    # The VNIC outlives its instance for a while, and holds the subnet.
    assert "references the VNIC" in refused(409, "Conflict", network.delete_subnet, subnet.id)
    for delete, identity in [
        (network.delete_subnet, subnet.id),
        (network.delete_route_table, table.id),
        (network.delete_internet_gateway, gateway.id),
        (network.delete_network_security_group, group.id),
        (network.delete_vcn, vcn.id),
    ]:
        end = time.monotonic() + 10
        while True:
            try:
                delete(identity)
                break
            except oci.exceptions.ServiceError as error:
                assert error.status == 409 and time.monotonic() < end
                time.sleep(0.01)
    end = time.monotonic() + 10
    while any(found.id == vcn.id for found in network.list_vcns(compartment).data):
        assert time.monotonic() < end
        time.sleep(0.01)
    refused(404, "NotAuthorizedOrNotFound", network.get_security_list, vcn.default_security_list_id)

    listed = {found.id: found.lifecycle_state for found in at.compute.list_instances(compartment).data}
    assert listed[instance.id] == "TERMINATED"
    attached = at.compute.list_vnic_attachments(compartment, instance_id=instance.id).data
    assert [attachment.lifecycle_state for attachment in attached] == ["DETACHED"]
    for identity in (instance.id, volume.boot_volume_id, subnet.id, vcn.id, vcn.default_security_list_id):
        assert row(cloud, identity)["ended"], identity


def test_a_kept_boot_volume_goes_on_billing(cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any) -> None:
    instance = at.compute.launch_instance(launch_details(cloud, at, subnet)).data
    until("RUNNING", at.compute.get_instance, instance.id)
    at.compute.instance_action(instance.id, "STOP")
    until("STOPPED", at.compute.get_instance, instance.id)
    assert row(cloud, instance.id)["hourly"] == 0
    at.compute.terminate_instance(instance.id, preserve_boot_volume=True)
    until("TERMINATED", at.compute.get_instance, instance.id)
    kept = [volume for volume in at.storage.list_boot_volumes(compartment_id=cloud.compartment).data
            if volume.lifecycle_state == "AVAILABLE"]  # fmt: skip
    assert len(kept) == 1 and row(cloud, kept[0].id)["hourly"] > 0
    at.storage.delete_boot_volume(kept[0].id)


# Machines


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("host", "login", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        kind, data = (folder / f"{name}.pub").read_text().split()[:2]
        (folder / f"known_{name}").write_text(f"machine.alias {kind} {data}\n")
    return folder


def ssh(keys: Path, address: str, command: str, pin: str = "host", user: str = "ubuntu") -> Any:
    options = {
        "IdentityFile": keys / "login", "IdentitiesOnly": "yes", "StrictHostKeyChecking": "yes", "BatchMode": "yes",
        "UserKnownHostsFile": keys / f"known_{pin}", "GlobalKnownHostsFile": "none", "HostKeyAlias": "machine.alias",
        "ConnectionAttempts": "1",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    line = ["ssh", "-F", "none", *words, f"{user}@{address}", command]
    return subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)


def answers(address: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((address, 22)) == 0


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def launch_with_host_key(cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any, keys: Path) -> tuple[Any, str]:
    pair = {"ed25519_private": (keys / "host").read_text(), "ed25519_public": (keys / "host.pub").read_text()}
    config = {"ssh_deletekeys": True, "ssh_keys": pair}
    metadata = {
        "ssh_authorized_keys": (keys / "login.pub").read_text(),
        "user_data": base64.b64encode(f"#cloud-config\n{json.dumps(config)}".encode()).decode(),
    }
    instance = at.compute.launch_instance(launch_details(cloud, at, subnet, metadata=metadata)).data
    until("RUNNING", at.compute.get_instance, instance.id)
    attachment = at.compute.list_vnic_attachments(cloud.compartment, instance_id=instance.id).data[0]
    return instance, str(at.network.get_vnic(attachment.vnic_id).data.public_ip)


@needs_machines
def test_a_machine_answers_with_the_key_that_was_posted(
    cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any, keys: Path
) -> None:
    instance, address = launch_with_host_key(cloud, at, subnet, keys)
    wait_for(lambda: answers(address))
    seen = ssh(keys, address, "id -un; sudo -n id -un; hostname; ls /root; ls /etc/ssh/ssh_host_*_key")
    assert seen.stdout.split() == ["ubuntu", "root", "machine", "/etc/ssh/ssh_host_ed25519_key"], seen.stderr
    wrong = ssh(keys, address, "true", pin="other")
    assert wrong.returncode == 255 and "Host key verification failed" in wrong.stderr
    assert ssh(keys, address, "true", user="root").returncode == 255

    # What a guest does stays in it, and outlives its power.
    assert ssh(keys, address, "sudo -n sh -c 'echo mine > /usr/bin/mine; echo mine > /etc/mine'").returncode == 0
    assert not Path("/usr/bin/mine").exists() and not Path("/etc/mine").exists()
    at.compute.instance_action(instance.id, "STOP")
    until("STOPPED", at.compute.get_instance, instance.id)
    wait_for(lambda: not answers(address))
    at.compute.instance_action(instance.id, "START")
    until("RUNNING", at.compute.get_instance, instance.id)
    wait_for(lambda: answers(address))
    assert ssh(keys, address, "cat /usr/bin/mine /etc/mine").stdout.split() == ["mine", "mine"]

    # The listener reads its keys again when told to: so a client can rotate them.
    new = (keys / "other").read_text()
    change = "cat > /etc/ssh/ssh_host_ed25519_key; kill -HUP $(cat /run/sshd.pid)"
    assert ssh(keys, address, f"echo '{new}' | sudo -n sh -c '{change}'").returncode == 0
    wait_for(lambda: ssh(keys, address, "true", pin="other").returncode == 0)
    assert ssh(keys, address, "true").returncode == 255
    at.compute.terminate_instance(instance.id)
    wait_for(lambda: not answers(address))


@needs_machines
def test_machines_do_not_outlive_a_killed_emulator(tmp_path: Path, keys: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, emulated_cloud(tmp_path, waiting=0.1) as cloud:
        for name, value in cloud.env.items():
            patch.setenv(name, value)
        at = clients(cloud)
        _, address = launch_with_host_key(cloud, at, make_subnet(cloud, at, make_vcn(cloud, at)), keys)
        wait_for(lambda: answers(address))
        os.kill(cloud.ready["pid"], signal.SIGKILL)
        wait_for(lambda: not answers(address))
