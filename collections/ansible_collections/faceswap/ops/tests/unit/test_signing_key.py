"""Keys are made by GnuPG here, and read without it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.faceswap.ops.plugins.modules import signing_key
from ansible_collections.faceswap.ops.plugins.modules.signing_key import NotAKeyError, fingerprint


class Keys:
    """Two keys of a folder of GnuPG, armored and not, with their fingerprints."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.fingerprints = [self.make("rsa2048"), self.make("ed25519")]

    def gpg(self, *words: str) -> bytes:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--no-tty", *words]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout

    def make(self, kind: str) -> str:
        self.gpg("--passphrase", "", "--quick-generate-key", f"Dummy {kind}", kind, "sign", "never")
        return self.listed()[-1]

    def listed(self) -> list[str]:
        lines = self.gpg("--with-colons", "--list-keys").decode().splitlines()
        return [line.split(":")[9] for line in lines if line.startswith("fpr")]


@pytest.fixture(scope="session")
def keys() -> Iterator[Keys]:
    if not shutil.which("gpg"):
        pytest.skip("no gpg on this machine to make keys with")
    with tempfile.TemporaryDirectory() as home:  # a short path, or its agent cannot listen there
        try:
            yield Keys(Path(home))
        finally:
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)


def play(url: str, wanted: str, path: Path, check: bool = False) -> dict[str, Any]:
    arguments = {"url": url, "fingerprint": wanted, "path": str(path), "_ansible_check_mode": check}
    done = subprocess.run(
        [sys.executable, signing_key.__file__, json.dumps({"ANSIBLE_MODULE_ARGS": arguments})],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    result: dict[str, Any] = json.loads(done.stdout or done.stderr)
    return result


def test_the_fingerprint_is_the_one_gnupg_tells(keys: Keys) -> None:
    for wanted in keys.fingerprints:
        assert fingerprint(keys.gpg("--export", wanted)) == wanted
        assert fingerprint(keys.gpg("--armor", "--export", wanted)) == wanted


def test_just_one_whole_key_is_taken(keys: Keys) -> None:
    both, one = keys.gpg("--export"), keys.gpg("--export", keys.fingerprints[0])
    with pytest.raises(NotAKeyError, match="2 keys and not one"):
        fingerprint(both)
    with pytest.raises(NotAKeyError, match="2 keys and not one"):
        fingerprint(keys.gpg("--armor", "--export"))
    for damaged in (one[:100], one[:-3], keys.gpg("--armor", "--export", keys.fingerprints[0])[:300]):
        with pytest.raises(NotAKeyError, match="cut off"):
            fingerprint(damaged)
    for nothing in (b"", b"<html>not found</html>", b"\x99"):
        with pytest.raises(NotAKeyError):
            fingerprint(nothing)


def test_a_trusted_key_is_written_once(keys: Keys, tmp_path: Path) -> None:
    wanted, source, path = keys.fingerprints[0], tmp_path / "a key.pub", tmp_path / "trusted.asc"
    source.write_bytes(keys.gpg("--armor", "--export", wanted))
    assert play(source.as_uri(), wanted, path, check=True)["changed"] and not path.exists()
    assert play(source.as_uri(), wanted.lower(), path)["changed"]
    assert path.read_bytes() == source.read_bytes() and path.stat().st_mode & 0o777 == 0o644
    source.unlink()  # it is not fetched again
    assert not play(source.as_uri(), wanted, path)["changed"]


def test_another_key_is_not_trusted(keys: Keys, tmp_path: Path) -> None:
    source, path = tmp_path / "key.pub", tmp_path / "trusted.asc"
    source.write_bytes(keys.gpg("--export", keys.fingerprints[1]))
    refused = play(source.as_uri(), keys.fingerprints[0], path)
    assert refused["failed"] and "it is not trusted" in refused["msg"] and keys.fingerprints[1] in refused["msg"]
    assert not path.exists()


def test_a_key_that_cannot_be_fetched_is_told(tmp_path: Path) -> None:
    for url in ((tmp_path / "none").as_uri(), "http://127.0.0.1:9/key.pub"):
        refused = play(url, "0" * 40, tmp_path / "trusted.asc")
        assert refused["failed"] and "could not be fetched" in refused["msg"]
