"""Make dummies of NVIDIA's package repositories, and of a kernel that has a GPU.

    python make_repository.py FOLDER

FOLDER gets dummies.tar, whose `srv` belongs into a host's root, and the file fingerprint, of the key made for it that
signs the repositories. Each package says in its description that it is a dummy, and does what the scenario needs of
the real one: nothing in it is NVIDIA's.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = "/srv/gpu"

# By folder of the repository: three releases of the kernel. Of the first there are no headers to be had any more.
KERNELS = {
    "debian12": ("6.1.0-89-amd64", "6.1.0-90-amd64", "6.1.0-91-amd64"),
    "debian13": ("6.12.89+deb13-amd64", "6.12.90+deb13-amd64", "6.12.91+deb13-amd64"),
}
KEY_FILES = {"debian12": "3bf863cc.pub", "debian13": "8793F200.pub"}
BRANCHES = {"debian12": "580", "debian13": "595"}
LATER = "610"  # what comes where the branch is not kept to

SMI = f"""#!/bin/sh
# Answers as nvidia-smi does, if the dummy kernel has the driver in it.
if ! [ -d {ROOT}/sys/module/nvidia ] || [ -d {ROOT}/sys/module/nouveau ]; then
    echo "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver." >&2
    exit 9
fi
mode=Disabled
[ -e /run/nvidia-persistenced/on ] && mode=Enabled
for card in {ROOT}/sys/bus/pci/devices/*; do
    echo "$(cat {ROOT}/sys/module/nvidia/version), $mode"
done
"""

PERSISTENCED = """#!/bin/sh
# As the vendor's unit begins it, it keeps nothing ready; --persistence-mode does.
case "$*" in *--persistence-mode*) touch /run/nvidia-persistenced/on ;; esac
exec sleep infinity
"""

PERSISTENCED_UNIT = """[Unit]
Description=Dummy of the NVIDIA Persistence Daemon

[Service]
Type=exec
RuntimeDirectory=nvidia-persistenced
ExecStart=/usr/bin/nvidia-persistenced --no-persistence-mode
"""

DKMS = f"""#!/bin/sh
# Knows `status` and `autoinstall` for one kernel, and counts what it builds.
kernel=$(cat {ROOT}/proc/sys/kernel/osrelease) verb=
while [ $# -gt 0 ]; do
    case "$1" in -k) kernel=$2; shift ;; *) verb=$1 ;; esac
    shift
done
source=$(cat {ROOT}/dkms/source 2>/dev/null) || exit 0
built={ROOT}/dkms/$kernel
if [ "$verb" = autoinstall ] && ! [ -e "$built" ]; then
    if ! [ -d "{ROOT}/lib/modules/$kernel/build" ]; then
        echo "Error! Your kernel headers for kernel $kernel cannot be found." >&2
        exit 21
    fi
    echo "$source" >"$built"
elif [ "$verb" = status ] && [ -e "$built" ]; then
    echo "$source, $kernel, x86_64: installed"
fi
"""

MODPROBE = f"""#!/bin/sh
# Loads modules into the dummy kernel. A file {ROOT}/console makes nouveau one that a console uses.
modules={ROOT}/sys/module kernel=$(cat {ROOT}/proc/sys/kernel/osrelease)
if [ "$1" = -r ]; then
    if [ "$2" = nouveau ] && [ -e {ROOT}/console ]; then
        echo "modprobe: FATAL: Module nouveau is in use." >&2
        exit 1
    fi
    rm -rf "$modules/$2"
    exit
fi
[ -e "{ROOT}/dkms/$kernel" ] || {{ echo "modprobe: FATAL: Module $1 not found in directory $kernel" >&2; exit 1; }}
[ -d "$modules/nouveau" ] && {{ echo "modprobe: ERROR: could not insert '$1': No such device" >&2; exit 1; }}
mkdir -p "$modules/$1"
cut -d/ -f2 "{ROOT}/dkms/$kernel" >"$modules/$1/version"
"""

MODINFO = f"#!/bin/sh\ncut -d/ -f2 {ROOT}/dkms/$(cat {ROOT}/proc/sys/kernel/osrelease)\n"

INITRAMFS = f"""#!/bin/sh
# What the next boot denies is what the initramfs says; the files it is made of count just when it is made.
cat /etc/modprobe.d/* >{ROOT}/initramfs 2>/dev/null
true
"""

# What a boot does to the kernel: the newest is taken, and drivers are bound to the cards.
BOOT = f"""#!/bin/sh
cd {ROOT}
rm -rf sys/module/nouveau sys/module/nvidia sys/module/nvidia_uvm
kernel=$(cd lib/modules && ls -d */kernel | sort -V | tail -n 1 | cut -d/ -f1)
echo "$kernel" >proc/sys/kernel/osrelease
[ -n "$(ls sys/bus/pci/devices)" ] || exit 0
grep -qs "^blacklist nouveau" initramfs || mkdir sys/module/nouveau
[ -e "dkms/$kernel" ] && /usr/local/sbin/modprobe nvidia && /usr/local/sbin/modprobe nvidia_uvm
true
"""

BOOT_UNIT = f"""[Unit]
Description=Dummy of a kernel with a GPU
Before=ssh.service nvidia-persistenced.service

[Service]
Type=oneshot
ExecStart={ROOT}/bin/boot

[Install]
WantedBy=multi-user.target
"""

# $1: the host's name; then the device id of each card.
SETUP = f"""#!/bin/sh
set -e
cd {ROOT}
. /etc/os-release
host=$1
shift
kernel={KERNELS["debian12"][1]}
[ "$VERSION_ID" = 13 ] && kernel={KERNELS["debian13"][1]}
[ "$host" = pascal ] && kernel={KERNELS["debian12"][0]}
mkdir -p proc/sys/kernel sys/module sys/bus/pci/devices "lib/modules/$kernel/kernel" dkms
number=0
for device; do
    number=$((number + 1))
    card=sys/bus/pci/devices/0000:00:0$number.0
    mkdir "$card"
    echo 0x10de >"$card/vendor"
    echo 0x030200 >"$card/class"
    echo "0x$device" >"$card/device"
done
ln -s {ROOT}/bin/modprobe {ROOT}/bin/modinfo {ROOT}/bin/update-initramfs /usr/local/sbin
cp bin/boot.service /etc/systemd/system/dummy-boot.service
case "$host" in
    debian13) touch console ;;
    image) # one that the provider made: the driver is there, and no package manager knows of it
        echo nvidia/575.57.08 >"dkms/$kernel"
        echo "blacklist nouveau" >initramfs
        cp bin/nvidia-smi /usr/local/bin
        cp bin/libcuda.so.1 /usr/local/lib
        ldconfig ;;
    bare) mkdir -p /etc/ansible/facts.d
        echo '{{"compute_capability": "8.6"}}' >/etc/ansible/facts.d/nvidia_cuda.fact ;;
esac
systemctl --quiet enable --now dummy-boot.service
"""


class Repository:
    """A folder of packages, which becomes an apt repository when it is signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    def add(
        self, name: str, version: str, files: dict[str, str] | None = None, postinst: str = "", **fields: str
    ) -> None:
        """Build a package with these files, of which those in a bin folder can be run."""
        tree = self.folder / "tree"
        control = {
            "Package": name,
            "Version": version,
            "Architecture": "amd64",
            "Maintainer": "Nobody <nobody@localhost>",
        }
        control |= {key.capitalize(): value for key, value in fields.items()} | {"Description": f"dummy of {name}"}
        contents = {"DEBIAN/control": "".join(f"{key}: {value}\n" for key, value in control.items())} | (files or {})
        if postinst:
            contents["DEBIAN/postinst"] = f"#!/bin/sh\nset -e\n{postinst}\n"
        for place, content in contents.items():
            path = tree / place.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            path.chmod(0o755 if content.startswith("#!") else 0o644)
        if name == "nvidia-driver-cuda":
            libraries = tree / "usr/lib/x86_64-linux-gnu"
            libraries.mkdir(parents=True)
            shutil.copy(self.folder.parents[2] / "gpu/bin/libcuda.so.1", libraries)
        run("dpkg-deb", "--root-owner-group", "--build", str(tree), f"{self.folder}/{name}_{version}.deb")
        shutil.rmtree(tree)

    def sign(self, home: Path) -> None:
        """Write the list of all packages, and sign it."""
        entries = []
        for deb in sorted(self.folder.glob("*.deb")):
            data, control = deb.read_bytes(), run("dpkg-deb", "--field", str(deb)).strip()
            digest = hashlib.sha256(data).hexdigest()
            entries.append(f"{control}\nFilename: ./{deb.name}\nSize: {len(data)}\nSHA256: {digest}\n")
        packages = "\n".join(entries).encode()
        (self.folder / "Packages").write_bytes(packages)
        release = (
            "Origin: dummies\nLabel: NVIDIA CUDA\nArchitectures: amd64\nDate: Mon, 02 Nov 2026 00:00:00 UTC\n"
            f"SHA256:\n {hashlib.sha256(packages).hexdigest()} {len(packages)} Packages\n"
        )
        gpg(home, "--clearsign", "--output", str(self.folder / "InRelease"), text=release)
        (self.folder / KEY_FILES[self.folder.parent.name]).write_text(gpg(home, "--armor", "--export"))


def run(*words: str, text: str | None = None) -> str:
    """Run a command and return what it says; a failure ends this program."""
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, input=text).stdout


def gpg(home: Path, *words: str, text: str | None = None) -> str:
    """Run GnuPG on a folder of keys."""
    return run("gpg", "--homedir", str(home), "--batch", "--quiet", "--no-tty", *words, text=text)


def make_key(home: Path) -> str:
    """Make a key without a passphrase in an empty folder and return its fingerprint."""
    gpg(home, "--passphrase", "", "--quick-generate-key", "Dummy of a repository", "rsa3072", "sign", "never")
    listed = gpg(home, "--with-colons", "--list-keys").splitlines()
    return next(line.split(":")[9] for line in listed if line.startswith("fpr"))


def fill(repository: Repository, system: str) -> None:
    """Add what the role installs on a system, in its branch and in a later one."""
    unit = {"/usr/lib/systemd/system/nvidia-persistenced.service": PERSISTENCED_UNIT}
    for branch in (BRANCHES[system], LATER):
        version = f"{branch}.1.1"
        add = repository.add
        add("nvidia-driver-cuda", version, {"/usr/bin/nvidia-smi": SMI})
        add("nvidia-persistenced", version, {"/usr/bin/nvidia-persistenced": PERSISTENCED, **unit})
        add("nvidia-modprobe", version)
        for flavour, other in (
            ("nvidia-kernel-open-dkms", "nvidia-kernel-dkms"),
            ("nvidia-kernel-dkms", "nvidia-kernel-open-dkms"),
        ):
            install = f"echo nvidia/{version} >{ROOT}/dkms/source\ndkms autoinstall"
            add(flavour, version, postinst=install, depends="dkms", conflicts=other)
        names = "nvidia-driver-cuda nvidia-persistenced nvidia-modprobe nvidia-kernel-*"
        pin = f"Package: {names}\nPin: version {branch}.*\nPin-Priority: 1000\n"
        add(f"nvidia-driver-pinning-{branch}", version, {"/etc/apt/preferences.d/nvidia-driver-pin": pin})
    hook = {"/etc/kernel/postinst.d/dkms": '#!/bin/sh\nexec dkms autoinstall -k "$1"\n'}
    repository.add("dkms", "99", {"/usr/sbin/dkms": DKMS, **hook})
    for kernel in KERNELS[system][1:]:
        folder = f"{ROOT}/lib/modules/{kernel}"
        repository.add(f"linux-headers-{kernel}", "99", {f"{folder}/build/Makefile": "# dummy\n"})
        hooks = f"if [ -d /etc/kernel/postinst.d ]; then run-parts --arg={kernel} /etc/kernel/postinst.d; fi"
        repository.add(f"linux-image-{kernel}", "99", {f"{folder}/kernel/dummy": "\n"}, postinst=hooks)
    for kind in ("headers", "image"):
        repository.add(f"linux-{kind}-amd64", "99", depends=f"linux-{kind}-{KERNELS[system][-1]}")
    repository.add("cuda-toolkit-13-0", "13.0.1", {"/usr/local/cuda-13.0/bin/nvcc": "#!/bin/sh\n"})


def main() -> None:
    """Make all in the folder that is named."""
    folder = Path(sys.argv[1]).resolve()
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    tools = folder / "srv/gpu/bin"
    tools.mkdir(parents=True)
    scripts = {"nvidia-smi": SMI, "modprobe": MODPROBE, "modinfo": MODINFO, "update-initramfs": INITRAMFS}
    for name, content in {**scripts, "boot": BOOT, "setup": SETUP, "boot.service": BOOT_UNIT}.items():
        (tools / name).write_text(content)
        (tools / name).chmod(0o755)
    library, source = str(tools / "libcuda.so.1"), str(HERE / "libcuda.c")
    run("gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wl,-soname,libcuda.so.1", "-o", library, source)
    with tempfile.TemporaryDirectory() as home:
        try:
            fingerprint = make_key(Path(home))
            for system in KERNELS:
                repository = Repository(folder / "srv/repository" / system / "x86_64")
                fill(repository, system)
                repository.sign(Path(home))
        finally:
            run("gpgconf", "--homedir", home, "--kill", "all")
    (folder / "fingerprint").write_text(fingerprint)
    with tarfile.open(folder / "dummies.new", "w") as archive:
        archive.add(folder / "srv", "srv", filter=owned_by_root)
    (folder / "dummies.new").rename(folder / "dummies.tar")


def owned_by_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Whoever made the files here, on the host they are root's."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


if __name__ == "__main__":
    main()
