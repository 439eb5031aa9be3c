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
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from emulated_cloud import EmulatedCloud, emulated_cloud
from oci_emulator.guest import what_is_missing
from oci_emulator.scenarios import known

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
        made.scenarios()


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
        limits=oci.limits.LimitsClient(config, **options),
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
    cloud.scenarios("capacity_in_work_request")
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


# Limits, capacity, prices, preemptible instances


A10, P100 = "VM.GPU.A10.1", "VM.GPU2.1"


def domain(number: int) -> str:
    return f"Uocm:US-ASHBURN-AD-{number}"


def left(cloud: EmulatedCloud, at: SimpleNamespace, number: int, limit: str = "gpu-a10-count") -> Any:
    return at.limits.get_resource_availability(
        "compute", limit, cloud.compartment, availability_domain=domain(number)
    ).data


def report(cloud: EmulatedCloud, at: SimpleNamespace, number: int, shape: str = A10, **more: Any) -> str:
    asked = [model("CreateCapacityReportShapeAvailabilityDetails", instance_shape=shape)]
    values = {"compartment_id": cloud.tenancy, "availability_domain": domain(number), "shape_availabilities": asked}
    answer = at.compute.create_compute_capacity_report(
        model("CreateComputeCapacityReportDetails", **(values | more)), retry_strategy=oci.retry.NoneRetryStrategy()
    )
    return str(answer.data.shape_availabilities[0].availability_status)


def end(at: SimpleNamespace, instance: Any) -> None:
    """Terminate an instance, once it can be, and see it gone."""
    until("RUNNING", at.compute.get_instance, instance.id)
    at.compute.terminate_instance(instance.id)
    until("TERMINATED", at.compute.get_instance, instance.id)


def public(cloud: EmulatedCloud, host: str, path: str) -> tuple[int, Any]:
    """One of the public documents, asked for without a signature."""
    context = ssl.create_default_context(cafile=cloud.env["SSL_CERT_FILE"])
    connection = http.client.HTTPSConnection("127.0.0.1", cloud.ready["port"], context=context)
    connection.set_tunnel(host, 443)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = json.loads(answer.read())
    connection.close()
    return answer.status, body


def test_limits_and_what_is_used_of_them(cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any) -> None:
    listed = at.limits.list_limit_definitions(cloud.tenancy, service_name="compute").data
    named = {found.name: found.scope_type for found in listed}
    shapes = at.compute.list_shapes(cloud.compartment).data
    assert {name for shape in shapes for name in shape.quota_names} <= set(named) and set(named.values()) == {"AD"}
    assert [found.name for found in at.limits.list_limit_definitions(cloud.tenancy, name="vcn-count").data]
    values = at.limits.list_limit_values(cloud.tenancy, "compute", name="gpu-a10-count").data
    assert [(row.availability_domain, row.value) for row in values] == [(domain(number), 4) for number in (1, 2, 3)]
    cloud.post("settings", {"page_size": 5})
    paged = oci.pagination.list_call_get_all_results(at.limits.list_limit_values, cloud.tenancy, "compute").data
    assert len(paged) == 3 * len(named)

    before = left(cloud, at, 3, "standard-e5-memory-count")
    config = model("LaunchInstanceShapeConfigDetails", ocpus=2, memory_in_gbs=8)
    image = at.compute.list_images(cloud.compartment, shape="VM.Standard.E5.Flex").data[0]
    source = model("InstanceSourceViaImageDetails", image_id=image.id)
    more = {"shape": "VM.Standard.E5.Flex", "shape_config": config, "source_details": source}
    details = launch_details(cloud, at, subnet, availability_domain=domain(3), **more)
    instance = at.compute.launch_instance(details).data
    after = left(cloud, at, 3, "standard-e5-memory-count")
    assert (after.used - before.used, before.available - after.available) == (8, 8)
    assert left(cloud, at, 3, "standard-e5-core-count").used == 2 and after.effective_quota_value is None
    assert left(cloud, at, 2, "standard-e5-core-count").used == 0
    end(at, instance)
    assert left(cloud, at, 3, "standard-e5-memory-count").used == before.used
    vcns = at.limits.get_resource_availability("vcn", "vcn-count", cloud.compartment).data
    assert vcns.used == len(at.network.list_vcns(cloud.compartment).data)


def test_questions_that_the_limits_service_refuses(cloud: EmulatedCloud, at: SimpleNamespace) -> None:
    ask, here = at.limits.get_resource_availability, {"availability_domain": domain(2)}
    refused(400, "InvalidParameter", ask, "compute", "gpu-a10-count", cloud.compartment)
    refused(400, "InvalidParameter", ask, "vcn", "vcn-count", cloud.compartment, **here)
    refused(400, "InvalidParameter", ask, "compute", "gpu-a10-count", cloud.compartment, availability_domain="AD-2")
    refused(404, "NotAuthorizedOrNotFound", ask, "compute", "gpu-moon-count", cloud.compartment, **here)
    refused(404, "NotAuthorizedOrNotFound", at.limits.list_limit_definitions, cloud.compartment)
    cloud.post("policy", {"denied": ["read resource-availability"]})
    refused(404, "NotAuthorizedOrNotFound", ask, "compute", "gpu-a10-count", cloud.compartment, **here)
    assert at.limits.list_limit_definitions(cloud.tenancy).data


def test_more_than_a_limit_allows_is_refused(cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any) -> None:
    first = at.compute.launch_instance(launch_details(cloud, at, subnet, shape=P100)).data
    second = at.compute.launch_instance(launch_details(cloud, at, subnet, shape=P100)).data
    message = refused(400, "LimitExceeded", at.compute.launch_instance,
                      launch_details(cloud, at, subnet, shape=P100))  # fmt: skip
    assert message.startswith("The following service limits were exceeded: gpu2-count. Request a service limit")
    for instance in (first, second):
        end(at, instance)


def test_a_capacity_report(cloud: EmulatedCloud, at: SimpleNamespace) -> None:
    assert [report(cloud, at, number) for number in (1, 2, 3)] == ["HARDWARE_NOT_SUPPORTED"] + ["AVAILABLE"] * 2
    refused(400, "InvalidParameter", report, cloud, at, 2, compartment_id=cloud.compartment)
    refused(400, "InvalidParameter", report, cloud, at, 2, shape="VM.Moon.1")
    cloud.post("policy", {"denied": ["manage compute-capacity-reports"]})
    refused(404, "NotAuthorizedOrNotFound", report, cloud, at, 2)


def test_the_price_list(cloud: EmulatedCloud) -> None:
    path = "/pls/apex/cetools/api/v1/products/?currencyCode=USD"
    status, listed = public(cloud, "apexapps.oracle.com", path)
    parts = {item["partNumber"]: item for item in listed["items"]}
    assert status == 200 and parts["B95909"]["metricName"] == "GPU Per Hour"
    price = {"model": "PAY_AS_YOU_GO", "value": 2.0}
    assert parts["B95909"]["currencyCodeLocalizations"] == [{"currencyCode": "USD", "prices": [price]}]
    assert len(parts["B93297"]["currencyCodeLocalizations"][0]["prices"]) == 2, "the first OCPU hours are free"
    _, one = public(cloud, "apexapps.oracle.com", path + "&partNumber=B91961")
    assert one["items"] == [parts["B91961"]]

    _, listed = public(cloud, "www.oracle.com", "/a/ocom/docs/cloudestimator2/data/shapes.json")
    shapes = {item["name"]: item for item in listed["items"]}
    assert (shapes[A10]["gpuQty"], shapes[A10]["allowPreemptible"], shapes[P100]["allowPreemptible"]) == (
        1,
        False,
        True,
    )
    products = [(part["partNumber"], part["qty"], part["type"]["value"]) for part in shapes[A10]["products"]]
    assert products == [("B95909", 15, "ocpu")]
    flexible = shapes["VM.Standard.E5.Flex"]["products"]
    assert [(part["partNumber"], part["qty"]) for part in flexible] == [("B97384", 0), ("B97385", 0)]
    assert public(cloud, "www.oracle.com", "/")[0] == 404
    assert public(cloud, "apexapps.oracle.com", path.replace("USD", "EUR"))[0] == 400


def preemptible(**action: Any) -> dict[str, Any]:
    details = model(
        "PreemptibleInstanceConfigDetails", preemption_action=model("TerminatePreemptionAction", **action)
    )
    return {"preemptible_instance_config": details}


@pytest.mark.parametrize("keep", [False, True])
def test_a_preemptible_instance_is_taken_away_after_its_notice(
    cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any, keep: bool
) -> None:
    cloud.scenarios("preempted")
    cloud.post("settings", {"preempt_after": 0.3, "preempt_notice": 0.3})
    more = preemptible(preserve_boot_volume=keep) | {"shape": P100}
    answer = at.compute.launch_instance(launch_details(cloud, at, subnet, **more))
    instance = until("RUNNING", at.compute.get_instance, answer.data.id)
    assert instance.preemptible_instance_config.preemption_action.preserve_boot_volume is keep
    assert row(cloud, instance.id)["hourly"] == 1.275 / 2 and row(cloud, instance.id)["notices"] == []
    refused(400, "InvalidParameter", at.compute.instance_action, instance.id, "STOP")
    wait_for(lambda: bool(row(cloud, instance.id)["notices"]))
    assert at.compute.get_instance(instance.id).data.lifecycle_state == "RUNNING"
    notice = row(cloud, instance.id)["notices"][0]
    assert notice["eventType"].endswith("instancepreemptionaction") and notice["data"]["resourceId"] == instance.id
    until("TERMINATED", at.compute.get_instance, instance.id)
    assert cloud.hits() == {"preempted": 1}
    done = at.work.list_work_requests(cloud.compartment, resource_id=instance.id).data
    assert {found.operation_type: found.status for found in done} == {
        "LaunchInstance": "SUCCEEDED", "TerminateInstance": "SUCCEEDED",
    }  # fmt: skip
    kept = [found for found in at.storage.list_boot_volumes(compartment_id=cloud.compartment).data
            if found.lifecycle_state == "AVAILABLE"]  # fmt: skip
    assert len(kept) == keep
    for volume in kept:
        at.storage.delete_boot_volume(volume.id)


def test_not_every_shape_can_be_preemptible(cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any) -> None:
    details = launch_details(cloud, at, subnet, **preemptible())
    assert A10 in refused(400, "InvalidParameter", at.compute.launch_instance, details)


# Scenarios: each has its effect somewhere here, and is counted when it had one


NO_HOST, REFUSED, GONE, BUSY = (500, "InternalError"), (400, "LimitExceeded"), (404, "NotAuthorizedOrNotFound"), 503
QUOTA, FORM = (400, "QuotaExceeded"), (400, "InvalidParameter")
# What launches are answered, one after the other: the domain, and the refusal (None: an instance).
LAUNCHES: dict[str, list[tuple[int, tuple[int, str] | None]]] = {
    "capacity_in_one_domain": [(2, NO_HOST), (2, NO_HOST), (3, None)],
    "capacity_report_lies": [(2, NO_HOST), (3, None)],
    "capacity_nowhere": [(2, NO_HOST), (3, NO_HOST)],
    "capacity_returns": [(2, NO_HOST), (3, NO_HOST), (2, NO_HOST), (2, None)],
    "shape_not_found_in_one_domain": [(2, GONE), (2, GONE), (3, None)],
    "throttled": [(2, (429, "TooManyRequests")), (2, None)],
    "server_error": [(2, NO_HOST), (2, None)],
    "unavailable": [(2, (BUSY, "ServiceUnavailable")), (2, None)],
    "limit_zero": [(2, REFUSED), (3, REFUSED)],
    "limit_in_one_domain": [(2, REFUSED), (3, None)],
    "limit_unforeseen": [(2, REFUSED), (2, REFUSED), (3, None)],
    "quota_zero": [(2, QUOTA), (3, QUOTA)],
    "quota_exceeded": [(2, QUOTA), (3, QUOTA)],
    "not_ready": [(2, (409, "IncorrectState")), (2, None)],
}
# What is said beforehand of AD-2 and AD-3: the capacity report, and how many A10s are left.
FORETOLD = {
    "capacity_in_one_domain": ("OUT_OF_HOST_CAPACITY", "AVAILABLE", 4, 4),
    "capacity_report_lies": ("AVAILABLE", "AVAILABLE", 4, 4),
    "capacity_nowhere": ("OUT_OF_HOST_CAPACITY", "OUT_OF_HOST_CAPACITY", 4, 4),
    "capacity_returns": ("OUT_OF_HOST_CAPACITY", "OUT_OF_HOST_CAPACITY", 4, 4),
    "limit_zero": ("AVAILABLE", "AVAILABLE", 0, 0),
    "limit_in_one_domain": ("AVAILABLE", "AVAILABLE", 0, 4),
    "quota_zero": ("AVAILABLE", "AVAILABLE", 0, 0),
}


@pytest.fixture
def empty(cloud: EmulatedCloud, at: SimpleNamespace) -> None:
    """No instance lives, as the numbers of what is left ask for."""
    for instance in at.compute.list_instances(cloud.compartment).data:
        if instance.lifecycle_state == "RUNNING":
            end(at, instance)


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("name", LAUNCHES)
def test_a_scenario_of_launches(cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any, name: str) -> None:
    details = {number: launch_details(cloud, at, subnet, availability_domain=domain(number)) for number in (2, 3)}
    cloud.scenarios(name)
    told = (
        *(report(cloud, at, number) for number in (2, 3)),
        *(left(cloud, at, number).available for number in (2, 3)),
    )
    assert told == FORETOLD.get(name, ("AVAILABLE", "AVAILABLE", 4, 4))
    for number, expected in LAUNCHES[name]:
        if expected:
            refused(*expected, at.compute.launch_instance, details[number])
        else:
            instance = at.compute.launch_instance(details[number]).data
            cloud.post("faults", [])
            end(at, instance)
    assert cloud.hits()[name] > 0
    if name == "capacity_returns":
        assert report(cloud, at, 3) == "AVAILABLE"


@pytest.mark.parametrize(
    ("name", "state", "message"),
    [
        ("capacity_in_work_request", "TERMINATED", "Out of host capacity"),
        ("dies_in_provisioning", "TERMINATED", "internal error on its host"),
        ("stuck_in_provisioning", "PROVISIONING", "did not start in time"),
    ],
)
def test_a_scenario_of_work_requests(
    cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any, name: str, state: str, message: str
) -> None:
    cloud.scenarios(name)
    assert report(cloud, at, 2) == "AVAILABLE"
    answer = at.compute.launch_instance(launch_details(cloud, at, subnet))
    request = answer.headers["opc-work-request-id"]
    refused(409, "IncorrectState", at.compute.terminate_instance, answer.data.id)
    wait_for(lambda: at.work.get_work_request(request).data.status == "FAILED")
    assert message in at.work.list_work_request_errors(request).data[0].message
    assert at.compute.get_instance(answer.data.id).data.lifecycle_state == state
    if state == "PROVISIONING":
        assert row(cloud, answer.data.id)["hourly"] == 2.0
        at.compute.terminate_instance(answer.data.id)
        until("TERMINATED", at.compute.get_instance, answer.data.id)
    assert row(cloud, answer.data.id)["hourly"] == 0 and cloud.hits()[name] == 1


def test_scenarios_of_what_cannot_be_read(cloud: EmulatedCloud, at: SimpleNamespace) -> None:
    cloud.scenarios("limits_unreadable", "report_unreadable", "prices_unreachable")
    refused(*GONE, left, cloud, at, 2)
    refused(*GONE, at.limits.list_limit_definitions, cloud.tenancy)
    refused(*GONE, at.limits.list_limit_values, cloud.tenancy, "compute")
    refused(*GONE, report, cloud, at, 2)
    assert public(cloud, "apexapps.oracle.com", "/pls/apex/cetools/api/v1/products/?currencyCode=USD")[0] == 503
    assert public(cloud, "www.oracle.com", "/a/ocom/docs/cloudestimator2/data/shapes.json")[0] == 503
    assert cloud.hits() == {"limits_unreadable": 3, "report_unreadable": 1, "prices_unreachable": 2}


def test_scenarios_of_lost_answers(cloud: EmulatedCloud, at: SimpleNamespace) -> None:
    vcn = make_vcn(cloud, at, "lossy")
    cloud.scenarios("network_answer_lost", "launch_answer_lost")
    values = {"compartment_id": cloud.compartment, "vcn_id": vcn.id, "cidr_block": "10.20.0.0/24"}
    with pytest.raises(oci.exceptions.RequestException):
        at.network.create_subnet(model("CreateSubnetDetails", **values))
    made = at.network.list_subnets(cloud.compartment, vcn_id=vcn.id).data[0]
    details = launch_details(cloud, at, until("AVAILABLE", at.network.get_subnet, made.id), display_name="lost")
    with pytest.raises(oci.exceptions.RequestException):
        at.compute.launch_instance(details)
    end(at, at.compute.list_instances(cloud.compartment, display_name="lost").data[0])
    assert set(cloud.hits().values()) == {1}


def test_a_scenario_of_slow_answers(cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any) -> None:
    details = launch_details(cloud, at, subnet, shape=None)
    cloud.scenarios("slow_answers")
    before = time.monotonic()
    at.network.list_vcns(cloud.compartment)
    assert 0.3 <= time.monotonic() - before < 3
    refused(400, "MissingParameter", at.compute.launch_instance, details)
    assert time.monotonic() - before >= 3.3 and cloud.hits() == {"slow_answers": 2}


def test_a_scenario_of_late_lists(cloud: EmulatedCloud, at: SimpleNamespace) -> None:
    before = len(at.network.list_vcns(cloud.compartment).data)
    cloud.scenarios("listed_late")
    vcn = make_vcn(cloud, at, "late")
    assert len(at.network.list_vcns(cloud.compartment).data) == before
    assert not at.network.list_route_tables(cloud.compartment, vcn_id=vcn.id).data
    cloud.post("settings", {"unlisted": 0.1})
    wait_for(lambda: len(at.network.list_vcns(cloud.compartment).data) == before + 1)
    assert cloud.hits()["listed_late"] >= 2


def test_a_scenario_of_slow_ends(cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any) -> None:
    instance = at.compute.launch_instance(launch_details(cloud, at, subnet)).data
    until("RUNNING", at.compute.get_instance, instance.id)
    cloud.scenarios("terminate_takes_long")
    at.compute.terminate_instance(instance.id)
    time.sleep(0.5)
    assert at.compute.get_instance(instance.id).data.lifecycle_state == "TERMINATING"
    assert row(cloud, instance.id)["hourly"] == 2.0 and cloud.hits() == {"terminate_takes_long": 1}


def test_a_scenario_of_conflicts(cloud: EmulatedCloud, at: SimpleNamespace) -> None:
    vcn = make_vcn(cloud, at, "referred to")
    own = make_subnet(cloud, at, vcn)
    cloud.scenarios("conflict_on_delete")
    for delete, get, part in (
        (at.network.delete_subnet, at.network.get_subnet, own),
        (at.network.delete_vcn, at.network.get_vcn, vcn),
    ):
        for _ in range(3):
            refused(409, "Conflict", delete, part.id)
        delete(part.id)
        wait_for(lambda get=get, part=part: answered(get, part.id) == 404)  # type: ignore[misc]
    assert cloud.hits() == {"conflict_on_delete": 6}


def answered(call: Callable[..., Any], *args: Any) -> int:
    """The status of an answer, be it good or not."""
    try:
        return int(call(*args).status)
    except oci.exceptions.ServiceError as error:
        return int(error.status)


def test_a_scenario_of_clocks(cloud: EmulatedCloud, at: SimpleNamespace) -> None:
    cloud.scenarios("clock_skew")
    assert "allowed clock skew" in refused(401, "NotAuthenticated", at.network.list_vcns, cloud.compartment)
    status, _ = send(cloud, {"date": email.utils.formatdate(time.time() + 600, usegmt=True)})
    assert status == 200 and cloud.hits() == {"clock_skew": 2}


def test_a_scenario_of_sessions(cloud: EmulatedCloud, at: SimpleNamespace) -> None:
    cloud.scenarios("session_expires")
    session = clients(cloud, "TOKEN")
    for _ in range(12):
        session.network.list_vcns(cloud.compartment)
    refused(401, "NotAuthenticated", session.network.list_vcns, cloud.compartment)
    assert at.network.list_vcns(cloud.compartment).status == 200 and cloud.hits() == {"session_expires": 1}


def test_a_scenario_of_preemptible_launches(cloud: EmulatedCloud, at: SimpleNamespace, subnet: Any) -> None:
    cloud.scenarios("not_preemptible")
    more = preemptible() | {"shape": P100}
    refused(*FORM, at.compute.launch_instance, launch_details(cloud, at, subnet, **more))
    for options in ({"availability_domain": domain(3), **more}, {"shape": P100}):
        end(at, at.compute.launch_instance(launch_details(cloud, at, subnet, **options)).data)
    assert cloud.hits() == {"not_preemptible": 1}


def test_scenarios_are_set_and_forgotten_as_a_whole(cloud: EmulatedCloud, at: SimpleNamespace) -> None:
    cloud.post("policy", {"granted": []})
    cloud.post("settings", {"page_size": 1})
    cloud.scenarios("limit_zero", "capacity_nowhere")
    assert (left(cloud, at, 2).available, report(cloud, at, 2)) == (0, "OUT_OF_HOST_CAPACITY")
    cloud.scenarios()
    assert (left(cloud, at, 2).available > 0, report(cloud, at, 2), cloud.hits()) == (True, "AVAILABLE", {})
    assert len(at.compute.list_images(cloud.compartment).data) > 1
    for nonsense in (["moon"], "limit_zero", [["limit_zero"]]):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            cloud.post("scenarios", nonsense)


def test_every_scenario_is_tested_here() -> None:
    text = Path(__file__).read_text()
    for name, scenario in known().items():
        assert f'"{name}"' in text and scenario.about.endswith("."), name


def test_a_scenario_from_the_command_line(tmp_path: Path) -> None:
    with emulated_cloud(tmp_path, no_ssh=True, scenario="limit_zero") as cloud:
        assert cloud.hits() == {"limit_zero": 0}


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
