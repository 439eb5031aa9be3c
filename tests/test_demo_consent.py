"""The demo's records: files, digests, signatures and inventories hold together; their key signs for nothing else."""

import datetime
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from faceswap_oci.shared import role_module

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "demo" / "consent"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The role's module on a machine where nobody is trusted."""
    module = role_module(ROOT, "consent.py")
    monkeypatch.setattr(module, "trust_folder", lambda: tmp_path / "nobody")
    return module


@pytest.mark.parametrize("side", ["a", "b"])
def test_they_hold_for_the_clips_wherever_the_demo_is_played(gate: ModuleType, side: str) -> None:
    path = RECORDS / f"{side}.yml"
    consent = gate.verified(path, side)
    assert consent.signer == "demo@faceswap-oci"
    assert consent.covers(gate.digest_of(ROOT / "demo" / f"clip{side.upper()}.mp4"))
    assert consent.reference == RECORDS / f"{side}.reference.png"
    assert "synthetic" in consent.record.identity
    gate.verified(path, side, datetime.date(2056, 1, 1))
    with pytest.raises(gate.ConsentError) as error:
        gate.verified(path, "ab".replace(side, ""))
    assert error.value.code == gate.NOT_COVERED


def test_they_are_two_persons_and_no_third_record_is_a_demos(gate: ModuleType) -> None:
    gate.pair(RECORDS / "a.yml", RECORDS / "b.yml")
    assert {gate.digest_of(path) for path in RECORDS.glob("*.yml")} == gate.DEMO_RECORDS
    assert len(gate.DEMO_RECORDS) == 2


def test_a_change_of_a_record_takes_the_demos_key_away(gate: ModuleType, tmp_path: Path) -> None:
    for path in RECORDS.iterdir():
        shutil.copy(path, tmp_path)
    record = tmp_path / "a.yml"
    record.write_text(record.read_text().replace("2056", "2057"))
    with pytest.raises(gate.ConsentError, match="nobody is trusted here"):
        gate.verified(record, "a")


def test_the_demos_key_signs_for_no_other_record(
    gate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even whoever had it could not make another one hold."""
    keygen = gate.ssh_keygen()
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    monkeypatch.setattr(gate, "DEMO_SIGNER", (tmp_path / "key.pub").read_text().strip())
    for path in RECORDS.iterdir():
        shutil.copy(path, tmp_path)
    record = tmp_path / "a.yml"
    record.write_text(record.read_text().replace("clipA.mp4", "other.mp4"))
    (tmp_path / "a.yml.sig").unlink()
    sign = [keygen, "-Y", "sign", "-q", "-n", gate.RECORD_NAMESPACE, "-f", str(tmp_path / "key"), str(record)]
    subprocess.run(sign, check=True, capture_output=True)
    with pytest.raises(gate.ConsentError) as error:
        gate.verified(record, "a")
    assert error.value.code == gate.MISSING
    monkeypatch.setattr(gate, "DEMO_RECORDS", {gate.digest_of(record)})
    assert gate.verified(record, "a").signer == "demo@faceswap-oci", "what was held back was the record, not the key"


def test_a_trusted_signers_list_revokes_them_too(gate: ModuleType) -> None:
    revoked = gate.Revocations(1, {"demo-a": datetime.date(2026, 11, 23)})
    with pytest.raises(gate.ConsentError) as error:
        gate.verified(RECORDS / "a.yml", "a", None, revoked)
    assert error.value.code == gate.REVOKED


@pytest.mark.parametrize(
    "inventory", ["inventory/demo", "inventory/oci", "inventory/rehearsal", "molecule/inventory"]
)
def test_who_uses_the_clips_uses_the_records(inventory: str) -> None:
    given: dict[str, Any] = yaml.safe_load((ROOT / inventory / "group_vars" / "all.yml").read_text())
    for side in ("a", "b"):
        assert f"demo/clip{side.upper()}.mp4" in given[f"faceswap_run_source_{side}"]
        assert f"demo/consent/{side}.yml" in given[f"faceswap_run_consent_{side}"]
