import base64
import email.utils
import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.faceswap.ops.plugins.module_utils import oci_client

TENANCY = "ocid1.tenancy.oc1..aaaaaaaaexample"
USER = "ocid1.user.oc1..aaaaaaaaexample"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "api_key.pem"
    command = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    path.chmod(0o600)
    return path


def fingerprint(key: Path) -> str:
    command = f"openssl rsa -in '{key}' -pubout -outform DER 2>/dev/null | openssl md5 -c"
    said = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True).stdout
    return said.split("= ")[1].strip()


def profile(path: Path, **values: object) -> str:
    path.write_text("[DEFAULT]\n" + "".join(f"{name}={value}\n" for name, value in values.items()))
    return str(path)


@pytest.fixture
def config(tmp_path: Path, key: Path) -> dict[str, object]:
    return {
        "tenancy": TENANCY,
        "user": USER,
        "fingerprint": fingerprint(key),
        "key_file": key,
        "region": "us-ashburn-1",
    }


def test_a_whole_profile_signs_in_without_a_request(tmp_path: Path, config: dict[str, object]) -> None:
    cloud = oci_client.connect(profile(tmp_path / "config", **config), "DEFAULT", "api_key", "eu-frankfurt-1")
    assert (cloud.tenancy, cloud.region) == (TENANCY, "eu-frankfurt-1")


def test_a_region_has_one_client_of_each_kind_however_many_threads_ask(
    tmp_path: Path, config: dict[str, object]
) -> None:
    cloud = oci_client.connect(profile(tmp_path / "config", **config), "DEFAULT", "api_key", None)
    with ThreadPoolExecutor(8) as pool:
        assert len({id(client) for client in pool.map(cloud.limits, ["eu-frankfurt-1"] * 8)}) == 1
    assert type(cloud.limits("eu-frankfurt-1")).__name__ == "LimitsClient"
    assert type(cloud.work_requests("eu-frankfurt-1")).__name__ == "WorkRequestClient"
    assert cloud.limits("us-ashburn-1") is not cloud.limits("eu-frankfurt-1")


@pytest.mark.parametrize(
    ("change", "region", "sentence"),
    [
        ({"region": "us-ashbrun-1"}, None, "There is no region us-ashbrun-1 .* is us-ashburn-1 meant?"),
        ({}, "nowhere", "There is no region nowhere"),
        ({"region": ""}, None, "No region is set"),
        ({"tenancy": ""}, None, "has no tenancy"),
        ({"fingerprint": "aa:" * 15 + "aa"}, None, "do not belong together: the key's fingerprint is"),
        ({"key_file": "nowhere.pem"}, None, "cannot be read: No such file"),
        ({"user": "me"}, None, "is not valid: .*user.*malformed"),
    ],
)
def test_a_profile_with_a_fault(
    tmp_path: Path, config: dict[str, object], change: dict[str, object], region: str | None, sentence: str
) -> None:
    with pytest.raises(oci_client.OciError, match=sentence):
        oci_client.connect(profile(tmp_path / "config", **{**config, **change}), "DEFAULT", "api_key", region)


def test_a_private_key_that_others_can_read(tmp_path: Path, config: dict[str, object], key: Path) -> None:
    key.chmod(0o644)
    with pytest.raises(oci_client.OciError, match=r"can be read by others .mode 0644.: chmod 600"):
        oci_client.connect(profile(tmp_path / "config", **config), "DEFAULT", "api_key", None)


def test_the_public_key_in_place_of_the_private_one(tmp_path: Path, config: dict[str, object], key: Path) -> None:
    subprocess.run(["sh", "-c", f"openssl rsa -in '{key}' -pubout > '{key}.pub' 2>/dev/null"], check=True)
    key.write_bytes(Path(f"{key}.pub").read_bytes())
    with pytest.raises(oci_client.OciError, match="is a public key: name the private key"):
        oci_client.connect(profile(tmp_path / "config", **config), "DEFAULT", "api_key", None)


def test_no_file_and_no_profile(tmp_path: Path, config: dict[str, object]) -> None:
    with pytest.raises(oci_client.OciError, match=r"cannot be read .No such file or directory.: make it as docs"):
        oci_client.connect(str(tmp_path / "none"), "DEFAULT", "api_key", None)
    with pytest.raises(oci_client.OciError, match=r"no profile STUDIO in .* \(it has: DEFAULT\)"):
        oci_client.connect(profile(tmp_path / "config", **config), "STUDIO", "api_key", None)


def test_an_expired_session_token(tmp_path: Path, config: dict[str, object]) -> None:
    payload = base64.urlsafe_b64encode(json.dumps({"exp": 1_700_000_000}).encode()).decode().rstrip("=")
    token = tmp_path / "token"
    token.write_text(f"e30.{payload}.c2ln")
    with pytest.raises(oci_client.OciError, match="expired at 2023-11-14 22:13 UTC: run 'oci session refresh"):
        file = profile(tmp_path / "config", **config, security_token_file=token)
        oci_client.connect(file, "DEFAULT", "security_token", None)


def test_retry_after_is_heeded_within_reason() -> None:
    def error(value: str) -> SimpleNamespace:
        return SimpleNamespace(headers={"retry-after": value})

    assert oci_client._retry_after(error("7")) == 7
    assert oci_client._retry_after(error("86400")) == 90
    assert oci_client._retry_after(error("Wed, 21 Oct 2026 07:28:00 GMT")) == 0


@pytest.mark.parametrize(
    ("status", "code", "message", "again"),
    [
        (429, "TooManyRequests", "", True),
        (409, "IncorrectState", "", True),
        (503, "ServiceUnavailable", "", True),
        (500, "InternalError", "Out of host capacity.", False),
        (409, "Conflict", "", False),
        (400, "LimitExceeded", "", False),
    ],
)
def test_what_another_try_may_help(status: int, code: str, message: str, again: bool) -> None:
    assert oci_client._may_pass(oci_client.OciError(message, status, code, message)) is again


def test_waiting_between_tries_grows_and_ends() -> None:
    waits = list(oci_client._waits())
    assert waits[0] < 0.5 < waits[-1] <= 12
    assert 60 < sum(waits) < 140


def test_a_clock_that_is_off_is_seen_in_the_answer() -> None:
    date = email.utils.formatdate(time.time() + 3600, usegmt=True)
    assert abs(oci_client._clock_skew({"date": date}) - 3600) < 2
    assert oci_client._clock_skew({}) == 0


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("create_vcn", "manage vcns in compartment <your compartment>"),
        ("delete_nat_gateway", "manage nat-gateways in compartment <your compartment>"),
        (
            "add_network_security_group_security_rules",
            "manage network-security-groups in compartment <your compartment>",
        ),
        ("list_images", "read instance-images in compartment <your compartment>"),
        ("list_image_shape_compatibility_entries", "read instance-images in compartment <your compartment>"),
        ("instance_action", "manage instances in compartment <your compartment>"),
        ("get_vnic", "use vnics in compartment <your compartment>"),
        ("list_region_subscriptions", "inspect tenancies in tenancy"),
        ("list_limit_definitions", "inspect resource-availability in tenancy"),
        ("list_limit_values", "inspect resource-availability in tenancy"),
        ("get_resource_availability", "read resource-availability in tenancy"),
        ("create_compute_capacity_report", "manage compute-capacity-reports in tenancy"),
        ("list_work_requests", "manage instances in compartment <your compartment>"),
        ("list_work_request_errors", "manage instances in compartment <your compartment>"),
        ("get_work_request", "manage instances in compartment <your compartment>"),
    ],
)
def test_the_policy_that_allows_a_call(method: str, expected: str) -> None:
    assert oci_client.statement(method) == expected
