"""The file tree of a Debian release that hosts start from: made once by mmdebstrap, and kept in the user's cache."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from .sources import CERTIFICATES, apt_lines, python_index

# As small as a cloud image can be: what a role needs beyond it, it must install.
_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "cloud-init", "sudo", "python3",
    "python3-apt", "ca-certificates", "iproute2", "procps", "kmod",
)  # fmt: skip
_UNWANTED_UNITS = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "fstrim.timer", "console-getty.service",
    "getty.target",
)  # fmt: skip
_CLOUD_CONFIG = """datasource_list: [NoCloud]
network: {config: disabled}
locale: false
"""


def tree(suite: str, proxy: str) -> Path:
    """Return the tree of a Debian suite, such as bookworm; it must not be written to.

    `proxy` is the URL by which a host will reach packages. The first call takes a minute, and others wait.
    """
    recipe = repr((suite, proxy, _PACKAGES, _UNWANTED_UNITS, _CLOUD_CONFIG, apt_lines(suite), python_index()))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "faceswap-oci" / "testhosts"
    place = cache / f"{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if place.exists():
        return place
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            print(f"testhosts: making the tree of {suite}, about a minute and 300 MB", file=sys.stderr, flush=True)
            unfinished = place.with_suffix(".new")
            shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
            _make(unfinished, suite, proxy, lock.fileno())
            unfinished.rename(place)
    return place


def _make(root: Path, suite: str, proxy: str, lock: int) -> None:
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(_PACKAGES)}", suite, str(root)]
    # It has the lock for as long as it works, even where this process is killed meanwhile.
    done = subprocess.run([*command, *apt_lines(suite)], capture_output=True, text=True, check=False, pass_fds=[lock])
    if done.returncode:
        raise OSError(f"mmdebstrap could not make a tree of {suite}: {' '.join(done.stderr.split()[-60:])}")
    _write(
        root / "etc/apt/apt.conf.d/01proxy", f'Acquire::http::Proxy "{proxy}";\nAcquire::https::Proxy "{proxy}";\n'
    )
    index = f"index-url = {python_index()}\n" if python_index() else ""
    _write(root / "etc/pip.conf", f"[global]\nproxy = {proxy}\ncert = {CERTIFICATES}\n{index}")
    _write(root / "etc/cloud/cloud.cfg.d/99-testhosts.cfg", _CLOUD_CONFIG)
    _write(root / "etc/resolv.conf", "# no name servers: names are the proxy's business\n")
    for certificate in Path("/usr/local/share/ca-certificates").glob("*.crt"):
        shutil.copy(certificate, root / "usr/local/share/ca-certificates")
    for command in (["update-ca-certificates"], ["systemctl", "mask", *_UNWANTED_UNITS]):
        subprocess.run(["chroot", str(root), *command], capture_output=True, check=True)
    for old in [*(root / "etc/ssh").glob("ssh_host_*"), root / "etc/hostname"]:
        old.unlink(missing_ok=True)
    (root / "etc/machine-id").write_text("")


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)  # it may be a link to somewhere outside
    path.write_text(text)
