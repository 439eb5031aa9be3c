"""Signers, records and revocations made by a test, and programs that see them as this machine's own trust folder.

Where the trusted signers and the audit log stand is no setting, so a program under test runs in a mount namespace,
in which /etc/faceswap-oci and the account's state are folders of the test. That takes root, as test hosts do.
"""

import datetime
import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import av
from PIL import Image

CONSENT = Path(__file__).parent.parent / "roles" / "faceswap_run" / "files" / "consent.py"
# Overlay and bind mounts end with the last process of the namespace.
ENTER = """
mount -t tmpfs none "$1/etc" && mkdir "$1/etc/upper" "$1/etc/work"
mount -t overlay none -o "lowerdir=/etc,upperdir=$1/etc/upper,workdir=$1/etc/work" /etc
mkdir -p /etc/faceswap-oci && mount --bind "$1/trust" /etc/faceswap-oci
mkdir -p "$2" && mount --bind "$1/state" "$2"
shift 2
exec "$@"
"""


@cache
def consent() -> ModuleType:
    """The role's own module, which reads and writes records."""
    spec = importlib.util.spec_from_file_location("consent", CONSENT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["consent"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def what_is_missing() -> str | None:
    """Why no program can be given a trust folder of the test's own; None where it can."""
    if os.geteuid() != 0:
        return "a trust folder of a test's own needs root"
    return None if shutil.which("unshare") else "a trust folder of a test's own needs unshare (util-linux)"


class Trust:
    """A folder of trusted signers with one signer, and a stranger who is not in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trusted = folder / "trust"
        self.trusted.mkdir(parents=True, mode=0o755)
        for name in ("etc", "state"):
            (folder / name).mkdir()
        self.signer, self.stranger = self._key("signer"), self._key("stranger")
        (self.trusted / "allowed_signers").write_text(self.allowed(self.signer))
        self._number = 0

    @property
    def prefix(self) -> list[str]:
        """The words before a command that is to see the folder."""
        unshare = ["unshare", "--mount", "--propagation", "private", "--"]
        account = Path(pwd.getpwuid(os.getuid()).pw_dir, ".local", "state", "faceswap-oci")
        return [*unshare, "sh", "-ec", ENTER, "trust", str(self.folder), str(account)]

    @property
    def audit(self) -> Path:
        """The audit log of the programs that see the folder."""
        return self.folder / "state" / "audit"

    def _key(self, name: str) -> Path:
        key = self.folder / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key)], check=True)
        return key

    def allowed(self, key: Path) -> str:
        """The line of a list of trusted signers for a key."""
        return f"{key.name}@test {key.with_name(key.name + '.pub').read_text()}"

    def record(
        self,
        source: Path,
        sides: str,
        *,
        key: Path | None = None,
        sign: bool = True,
        valid: tuple[str, str] = ("2026-01-01", "2096-01-01"),
        more: Sequence[Path] = (),
        reference: Path | None = None,
        identity: str = "",
    ) -> Path:
        """A record for a source on these sides, in a folder of its own beside its picture."""
        module = consent()
        self._number += 1
        folder = self.folder / f"record-{self._number}"
        folder.mkdir()
        picture = folder / "person.reference.png"
        if reference is None:
            still(source, picture)
        else:
            shutil.copy(reference, picture)
        items = tuple(module.Item(module.digest_of(path), path.name) for path in (source, *more))
        record = module.Record(
            id=f"test-{self._number}",
            identity=identity or f"Test person {self._number}",
            recorded_by="The tests",
            purpose="To see that it is checked",
            may_be_made=tuple(module.SIDES[side] for side in sides),
            sources=items,
            reference=module.Item(module.digest_of(picture), picture.name),
            valid_from=datetime.date.fromisoformat(valid[0]),
            valid_until=datetime.date.fromisoformat(valid[1]),
        )
        path = folder / "person.yml"
        path.write_text(module.dump(record))
        if sign:
            self.sign(path, key or self.signer, module.RECORD_NAMESPACE)
        return path

    @staticmethod
    def reference(record: Path) -> Path:
        """The picture beside a record."""
        return record.with_name("person.reference.png")

    @staticmethod
    def sign(path: Path, key: Path, namespace: str) -> None:
        """Sign a file, as `consent sign` does."""
        path.with_name(path.name + ".sig").unlink(missing_ok=True)
        subprocess.run(
            ["ssh-keygen", "-Y", "sign", "-q", "-n", namespace, "-f", str(key), str(path)],
            check=True,
            capture_output=True,
        )

    def revoke(self, record: Path) -> None:
        """Put a record on the signed list of those that are void."""
        module = consent()
        path = self.trusted / "revoked.yml"
        before = module.parse_revocations(path.read_bytes()) if path.exists() else module.Revocations()
        ids = {**before.ids, module.parse(record.read_bytes()).id: datetime.datetime.now(datetime.UTC).date()}
        path.write_text(module.dump_revocations(replace(before, serial=before.serial + 1, ids=ids)))
        self.sign(path, self.signer, module.REVOCATIONS_NAMESPACE)

    @contextmanager
    def older_revocations(self) -> Iterator[None]:
        """For this time the list is the one before: signed, but without its last record."""
        module = consent()
        names = ("revoked.yml", "revoked.yml.sig")
        kept = {name: (self.trusted / name).read_bytes() for name in names}
        now = module.parse_revocations(kept["revoked.yml"])
        older = replace(now, serial=now.serial - 1, ids=dict(list(now.ids.items())[:-1]))
        (self.trusted / "revoked.yml").write_text(module.dump_revocations(older))
        self.sign(self.trusted / "revoked.yml", self.signer, module.REVOCATIONS_NAMESPACE)
        yield
        for name, content in kept.items():
            (self.trusted / name).write_bytes(content)


def still(source: Path, picture: Path) -> None:
    """Save the middle frame of a video."""
    with av.open(str(source)) as video:
        frames = list(video.decode(video=0))
    Image.fromarray(frames[len(frames) // 2].to_ndarray(format="rgb24")).save(picture)
