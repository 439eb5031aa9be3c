"""`faceswap-oci consent sign` and `trust`: signatures by SSH keys, and whose of them count on this machine."""

import argparse
import base64
import fnmatch
import json
import os
import pwd
import re
import shlex
import socket
import subprocess
from pathlib import Path

from faceswap_oci import ask
from faceswap_oci.play import OK, UsageError
from faceswap_oci.record_files import (
    SIDES,
    USES,
    House,
    absolute,
    command,
    read_record,
    sideless,
    signature_of,
)

_KEYS = ("id_ed25519", "id_ed25519_sk", "id_ecdsa", "id_ecdsa_sk", "id_rsa")  # in the order of preference
_PRINCIPAL = re.compile(r"[A-Za-z0-9._+-]+(@[A-Za-z0-9._-]+)?")  # no pattern, which would be several people
# What a person's own key may need to be used with: the agent, and a way to ask for the passphrase.
_FOR_SIGNING = ("SSH_AUTH_SOCK", "TERM", "DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR", "XAUTHORITY", "SSH_ASKPASS")


def sign(options: argparse.Namespace, house: House) -> int:
    """Sign a record, see whether it holds here now, and say what to write into the job file."""
    records, path = house.records, absolute(options.record)
    record, text = read_record(path, house)
    key = key_to_sign_with(options.key)
    signature = signed(text, key, records.RECORD_NAMESPACE, house)
    records.write_whole(signature_of(path), signature)
    print(f"Signed: {signature_of(path)}")
    public = public_line(signature, key)
    nobody = not (records.trusted_bytes(signers(house)) or b"").strip()
    asks = nobody and not options.trust and ask.terminal()
    if asks:
        print("Nobody is trusted to sign consent on this machine yet.")
    if options.trust or (asks and ask.yes("Trust this key of yours from now on")):
        add_signer(public, None, house)
    side = SIDES[record.may_be_made[0]]
    try:
        records.verified(path, side)
    except records.ConsentError as error:
        if error.code not in (records.STRANGER, records.MISSING) or is_trusted(
            public, records.RECORD_NAMESPACE, house
        ):
            raise UsageError(sideless(error, record), error.code) from error
        print(
            f"This key is not among the trusted signers here ({signers(house)}), so the record does not count yet. "
            "If the consents that it signs shall count on this machine:\n\n"
            f"  {command()} consent trust {shlex.quote(str(_pub(key)))}"
        )
        return OK
    print("The record holds. In the job file:\n")
    for use in record.may_be_made:
        print(f"  faceswap_run_consent_{SIDES[use]}: {json.dumps(str(path), ensure_ascii=False)}  # {USES[use]}")
    return OK


def trust(options: argparse.Namespace, house: House) -> int:
    """Take a public key into the list of trusted signers."""
    path = absolute(options.key)
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    if "PRIVATE KEY" in text:
        raise UsageError(f"{path} is a private key, which is its owner's alone: give the public half, {path}.pub.")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(lines) != 1 or not _fingerprint(lines[0], house):
        raise UsageError(f"{path} holds no public key: give a file such as ~/.ssh/id_ed25519.pub.")
    add_signer(lines[0], options.name, house)
    return OK


def add_signer(public: str, name: str | None, house: House) -> None:
    """Put a key on the list of those whose signatures count here, and say so."""
    kind, key, *comment = public.split(maxsplit=2)
    own = f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
    guess = comment[0] if comment and _PRINCIPAL.fullmatch(comment[0]) else own
    listed = _listed(public, house)
    # ssh-keygen asks for the name of the first line that has the key, whatever that line is for.
    named = [names for names, _ in listed if _PRINCIPAL.fullmatch(names)]
    name = named[0] if named else name or guess
    if not _PRINCIPAL.fullmatch(name):
        raise UsageError(f"{name!r} cannot name a signer: use letters, digits and . _ + -, such as jo@example.org.")
    path = signers(house)
    namespaces = (house.records.RECORD_NAMESPACE, house.records.REVOCATIONS_NAMESPACE)
    if all(is_trusted(public, one, house) for one in namespaces):
        print(f"Trusted already: {_fingerprint(public, house)}, in {path}")
        return
    before = (house.records.trusted_bytes(path) or b"").decode("utf-8", "replace")
    before += "\n" if before and not before.endswith("\n") else ""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    house.records.write_whole(path, f'{before}{name} namespaces="{",".join(namespaces)}" {kind} {key}\n'.encode())
    print(f"Trusted from now on: {name}, {_fingerprint(public, house)}, in {path}")


def is_trusted(public: str, namespace: str, house: House) -> bool:
    """Whether the list of trusted signers names this key for signatures of this namespace."""
    return any(_is_for(namespace, options) for _, options in _listed(public, house))


def _listed(public: str, house: House) -> list[tuple[str, str]]:
    """Names and options of each line that lists this key."""
    text = (house.records.trusted_bytes(signers(house)) or b"").decode("utf-8", "replace")
    kind, key = public.split()[:2]
    listed = re.compile(rf"(\S+)\s+(.*?)\s*{re.escape(kind)}\s+{re.escape(key)}(\s|$)")
    found = [listed.match(line.strip()) for line in text.splitlines() if not line.startswith("#")]
    return [(line[1], line[2]) for line in found if line]


def _is_for(namespace: str, options: str) -> bool:
    """Whether the options of a line leave this namespace in; without a word on it they leave all in."""
    if re.search(r"(^|,)cert-authority(,|$)", options, re.I):
        return False
    said = re.search(r'(?:^|,)namespaces="([^"]*)"', options, re.I)
    return said is None or any(fnmatch.fnmatchcase(namespace, one.strip()) for one in said[1].split(","))


def signers(house: House) -> Path:
    """The list of trusted signers, which may not be there yet."""
    return Path(house.records.trust_folder()) / "allowed_signers"


def key_to_sign_with(given: Path | None) -> Path:
    """The key to sign with: the private file, or the public one of a key that an agent holds."""
    if given:
        path = absolute(given)
        if not path.exists() and not _pub(path).exists():
            raise UsageError(f"There is no key {given}: check --key.")
        return path
    folder = Path(pwd.getpwuid(os.getuid()).pw_dir) / ".ssh"
    for name in _KEYS:
        if (folder / name).exists() or (folder / f"{name}.pub").exists():
            return folder / name
    raise UsageError(
        f"There is no SSH key in {folder} to sign with: make one with `ssh-keygen -t ed25519`, or name yours with "
        "--key."
    )


def _pub(key: Path) -> Path:
    return key if key.suffix == ".pub" else key.with_name(f"{key.name}.pub")


def signed(text: bytes, key: Path, namespace: str, house: House) -> bytes:
    """The signature of a text; ssh-keygen asks for a passphrase on the terminal by itself."""
    path = key if key.exists() else _pub(key)
    names = _FOR_SIGNING if ask.terminal() else ("SSH_AUTH_SOCK",)
    environment = {name: os.environ[name] for name in names if name in os.environ}
    done = subprocess.run(
        [house.records.ssh_keygen(), "-Y", "sign", "-q", "-f", str(path), "-n", namespace],
        input=text,
        stdout=subprocess.PIPE,
        stderr=None if ask.terminal() else subprocess.PIPE,
        env={**environment, "LC_ALL": "C", "PATH": os.defpath},
        start_new_session=not ask.terminal(),  # else it would ask on a terminal that nobody looks at
    )
    if done.returncode != 0:
        said = (done.stderr or b"").decode("utf-8", "replace").strip()
        words = f" ({said.splitlines()[-1]})" if said and "passphrase" not in said else ""
        raise UsageError(
            f"{path} did not sign{words}: if it has a passphrase, run this on a terminal, or `ssh-add {path}` before."
        )
    return done.stdout


def public_line(signature: bytes, key: Path) -> str:
    """The public key that made a signature, which holds it, as a line of a .pub file."""
    body = b"".join(line for line in signature.splitlines() if not line.startswith(b"-----"))
    blob = base64.b64decode(body)[10:]  # after SSHSIG and the version
    size = int.from_bytes(blob[:4], "big")
    public = blob[4 : 4 + size]
    kind = public[4 : 4 + int.from_bytes(public[:4], "big")].decode("ascii")
    words = _pub(key).read_text(encoding="utf-8").split(maxsplit=2) if _pub(key).exists() else []
    encoded = base64.b64encode(public).decode()
    comment = words[2].strip() if len(words) == 3 and words[1] == encoded else ""
    return f"{kind} {encoded} {comment}".strip()


def _fingerprint(public: str, house: House) -> str:
    """SHA256:... of a key, empty if it is none."""
    done = subprocess.run(
        [house.records.ssh_keygen(), "-l", "-f", "-"],
        input=f"{public}\n",
        capture_output=True,
        text=True,
        env={"LC_ALL": "C"},
    )
    return done.stdout.split()[1] if done.returncode == 0 else ""
