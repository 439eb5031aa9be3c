import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.faceswap.ops.plugins.module_utils import first_contact
from ansible_collections.faceswap.ops.plugins.module_utils.private_files import write_file


def test_a_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / "host_key"
    line = first_contact.make_key(path, "alias")
    assert line == first_contact.make_key(path, "alias")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "PRIVATE KEY" in path.read_text()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["host_key", "host_key.pub"]


def test_half_a_pair_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "host_key"
    before = first_contact.make_key(path, "alias")
    path.unlink()  # as a kill between the two renames leaves it
    assert first_contact.make_key(path, "alias") != before


def decoded(text: str) -> dict[str, Any]:
    head, _, body = base64.b64decode(text).decode().partition("\n")
    assert head == "#cloud-config"
    config: dict[str, Any] = json.loads(body)
    return config


def test_user_data_installs_the_key_beside_what_the_user_wants() -> None:
    config = decoded(first_contact.user_data("PRIVATE\n", "ssh-ed25519 AAAA x", {"packages": ["htop"]}))
    assert config["ssh_keys"] == {"ed25519_private": "PRIVATE\n", "ed25519_public": "ssh-ed25519 AAAA x"}
    assert config["ssh_deletekeys"] is True
    assert config["packages"] == ["htop"]


@pytest.mark.parametrize(
    ("config", "why"),
    [({"ssh_keys": {}}, "leave ssh_keys alone"), ({"write_files": ["x" * 13000]}, "bytes with cloud_config in it")],
)
def test_user_data_that_cannot_be(config: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        first_contact.user_data("PRIVATE", "ssh-ed25519 AAAA", config)


@pytest.mark.parametrize("text", ["", "-----BEGIN RSA PRIVATE KEY-----", "ssh-ed25519", "ssh-rsa !!!"])
def test_what_is_no_public_key(text: str) -> None:
    with pytest.raises(ValueError):
        first_contact.public_key(text)


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "known_hosts"
    assert write_file(path, "one\n") is True
    assert write_file(path, "one\n") is False

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        write_file(path, "two\n")
    assert (path.read_text(), [entry.name for entry in tmp_path.iterdir()]) == ("one\n", ["known_hosts"])
