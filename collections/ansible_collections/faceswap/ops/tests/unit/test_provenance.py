"""What a released video says of itself, and that nothing unsigned, unsound or unasked for leaves quarantine."""

import datetime
import io
import json
import os
import random
import re
import shutil
import stat
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible_collections.faceswap.ops.plugins.action import provenance as action
from ansible_collections.faceswap.ops.plugins.filter.signing_objections import signing_objections
from ansible_collections.faceswap.ops.plugins.module_utils import (
    audit_log,
    label_look,
    provenance,
    signing_certificate,
)
from ansible_collections.faceswap.ops.plugins.module_utils.provenance import ProvenanceError, Reading
from ansible_collections.faceswap.ops.plugins.module_utils.signing_certificate import (
    TEST_NAME,
    CredentialError,
    Credentials,
    credentials,
    read_credentials,
    throwaway_credentials,
)
from ansible_collections.faceswap.ops.plugins.plugin_utils import host_programs
from ansible_collections.faceswap.ops.plugins.plugin_utils.host_programs import RefusedError
from cryptography.hazmat.primitives.serialization import PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from signed_video import (
    CLIP,
    KEYS,
    NOW,
    asked,
    boxes,
    flipped,
    label_module,
    labelled,
    make_signer,
    released,
    sha256,
    sign,
)

C2PA_KINDS = ("es256", "es384", "es512", "ps256", "ed25519")
REPOSITORY = Path(__file__).parents[6]


@pytest.fixture(scope="session")
def test_signer(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return throwaway_credentials(tmp_path_factory.mktemp("state") / "test-certificate")


@pytest.fixture(scope="session")
def signed(tmp_path_factory: pytest.TempPathFactory, test_signer: Credentials) -> Path:
    target = tmp_path_factory.mktemp("signed") / "job.mp4"
    sign(CLIP, target, test_signer)
    return target


@pytest.fixture(scope="session", autouse=True)
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a host would release: some of the clip, with the label."""
    Job.clip = labelled(tmp_path_factory.mktemp("labelled") / "clip.mp4")
    return Job.clip


@pytest.fixture(autouse=True)
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This controller's audit log."""
    folder = tmp_path / "audit"
    monkeypatch.setattr(audit_log, "audit_folder", lambda: folder)
    return folder


def read(path: Path, roots: str = "") -> Reading | None:
    with provenance.open_file(path) as stream:
        return provenance.read(stream, roots=roots)


# -- keys and certificates ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", C2PA_KINDS)
def test_each_kind_of_key_signs_and_its_root_makes_it_trusted(tmp_path: Path, kind: str) -> None:
    signer = make_signer(tmp_path, kind)
    own = read_credentials(signer.key, signer.chain)
    assert (own.algorithm, own.kind, own.signer) == (kind, "own", "Jo Signer")
    provenance.try_out(own)
    wanted = sign(CLIP, tmp_path / "job.mp4", own)
    found = read(tmp_path / "job.mp4")
    assert found and (found.state, found.signer, found.is_test) == ("Valid", "Jo Signer", False)
    assert provenance.objection(found, wanted) is None
    trusted = read(tmp_path / "job.mp4", signer.root.read_text())
    assert trusted and trusted.state == "Trusted"
    stranger = read(tmp_path / "job.mp4", make_signer(tmp_path / "other").root.read_text())
    assert stranger and (stranger.state, stranger.altered) != ("Trusted", True)


@pytest.mark.parametrize("kind", ["es256", "ps256"])
def test_a_key_in_the_older_form_is_taken(tmp_path: Path, kind: str) -> None:
    signer = make_signer(tmp_path, kind, form=PrivateFormat.TraditionalOpenSSL)
    assert "PRIVATE KEY" in signer.key.read_text() and "BEGIN PRIVATE" not in signer.key.read_text()
    assert signing_objections(str(signer.key), str(signer.chain)) == []


def objection(tmp_path: Path, key: object = None, chain: object = None, **how: Any) -> str:
    signer = make_signer(tmp_path / "signer", **how)
    (found,) = signing_objections(str(key or signer.key), str(chain or signer.chain))
    assert re.fullmatch(r"[^\n]+[.]", found)
    return found


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"purpose": None}, "emailProtection"),
        ({"purpose": ExtendedKeyUsageOID.SERVER_AUTH}, "emailProtection"),
        ({"purpose": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}, "emailProtection"),
        ({"days": -0.5}, "expired on"),
        ({"begin": 1}, "not valid before"),
        ({"authority": True}, "authority|digitalSignature"),
        ({"kind": "short RSA"}, "1024 bits"),
        ({"kind": "other curve"}, "secp256k1"),
        ({"kind": "DSA"}, "of a kind that C2PA does not sign with"),
    ],
)
def test_a_certificate_that_c2pa_would_refuse_is_told_at_once(tmp_path: Path, how: dict[str, Any], said: str) -> None:
    assert re.search(said, objection(tmp_path, **how))


def test_a_key_and_a_certificate_must_belong_together(tmp_path: Path) -> None:
    other = make_signer(tmp_path / "other")
    assert "belong together" in objection(tmp_path, key=other.key)
    turned = tmp_path / "turned.pem"
    parts = other.chain.read_text().partition("-----END CERTIFICATE-----\n")
    turned.write_text(parts[2] + parts[0] + parts[1])
    assert "own certificate first" in objection(tmp_path, key=other.key, chain=turned)
    foreign = tmp_path / "foreign.pem"
    stranger = make_signer(tmp_path / "stranger").root.read_text()
    foreign.write_text(parts[0] + parts[1] + stranger)
    assert "not issued by the one after it" in objection(tmp_path, key=other.key, chain=foreign)


def test_what_is_no_key_or_certificate_is_told(tmp_path: Path) -> None:
    signer = make_signer(tmp_path / "s")
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("nonsense")
    assert "no private key" in objection(tmp_path, key=nonsense)
    signer.key.chmod(0o640)
    assert f"run `chmod 600 {signer.key}`" in objection(tmp_path, key=signer.key, chain=signer.chain)
    assert "no certificate" in objection(tmp_path, chain=nonsense)
    assert "There is no file" in objection(tmp_path, key=tmp_path / "none")
    assert "cannot be read" in objection(tmp_path, key=tmp_path)
    for pair in ((signer.key, ""), ("", signer.chain)):
        assert "is not: a key signs only" in signing_objections(*map(str, pair))[0]
    assert "relative path" in signing_objections("key.pem", "chain.pem")[0]
    locked = tmp_path / "locked"
    os.system(f"openssl ec -aes128 -passout pass:x -in '{signer.key}' -out '{locked}' 2>/dev/null")
    if locked.exists():
        assert "passphrase" in objection(tmp_path, key=locked)


def test_a_missing_library_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    (found,) = signing_objections("", "")
    assert "C2PA library is missing" in found


@pytest.mark.parametrize("name", ["av", "numpy", "PIL.Image"])
def test_what_the_label_is_looked_for_with_is_told_at_once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    (found,) = signing_objections("", "")
    assert "whether a result carries its label" in found and name in found


def test_without_a_key_nothing_is_made_while_planning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing_certificate, "state_home", lambda: tmp_path / "state")
    assert signing_objections("", "") == []
    assert not (tmp_path / "state").exists()


def test_the_test_certificate_is_called_so_and_kept(tmp_path: Path) -> None:
    first = credentials("", "", tmp_path)
    assert (first.kind, first.signer) == ("test", TEST_NAME)
    folder = tmp_path / "test-certificate"
    assert {path.name for path in folder.iterdir()} == {"key.pem", "chain.pem", "root.pem", "lock"}
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in folder.glob("*.pem"))
    assert credentials("", "", tmp_path).fingerprint == first.fingerprint
    with pytest.raises(CredentialError, match="proves nothing"):
        credentials(str(folder / "key.pem"), str(folder / "chain.pem"))


def test_the_test_certificate_is_made_anew_before_it_ends_and_after_a_cut(tmp_path: Path) -> None:
    first = throwaway_credentials(tmp_path)
    later = throwaway_credentials(tmp_path, NOW + datetime.timedelta(340))
    assert later.fingerprint != first.fingerprint
    make_signer(tmp_path / "x")
    shutil.copy(tmp_path / "x" / "key.pem", tmp_path / "key.pem")  # half of it written when the power went
    assert throwaway_credentials(tmp_path).fingerprint != later.fingerprint


def test_no_variable_moves_the_test_certificate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    assert tmp_path not in signing_certificate.state_home().parents


# -- the manifest ---------------------------------------------------------------------------------------------------


def test_the_version_is_that_of_the_project() -> None:
    assert tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"] == provenance.VERSION


def test_the_manifest_says_what_was_done_and_names_nobody(signed: Path) -> None:
    found = read(signed)
    assert found and found.is_test and found.state == "Valid"
    edited = found.manifest["assertions"][1]["data"]["actions"][1]
    assert edited["digitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert found.when == NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert found.swap["consents"] == [
        {"side": "a", "id": "consent-a", "sha256": "a" * 64},
        {"side": "b", "id": "consent-b", "sha256": "b" * 64},
    ]
    assert found.swap["sources"][0]["sha256"] == sha256(CLIP)
    whole = json.dumps(found.manifest)
    for private in ("example.org", "clipA", "job.mp4", str(Path.home()), os.uname().nodename):
        assert private not in whole
    assert b"example.org" not in signed.read_bytes()


@pytest.mark.parametrize("source", ["folder", "text.mp4", "other.mkv"])
def test_a_source_that_c2pa_cannot_read_is_an_ingredient_without_data(
    tmp_path: Path, test_signer: Credentials, source: str
) -> None:
    path = tmp_path / source
    if source == "folder":
        path.mkdir()
    else:
        path.write_text("no video")
    wanted = sign(CLIP, tmp_path / "job.mp4", test_signer, source=path)
    assert provenance.objection(read(tmp_path / "job.mp4"), wanted) is None


def test_a_source_that_is_signed_itself_and_even_a_broken_one_is_borne(
    tmp_path: Path, signed: Path, test_signer: Credentials
) -> None:
    source = tmp_path / "source.mp4"
    shutil.copy(signed, source)
    for at in (None, -100):
        if at:
            content = bytearray(source.read_bytes())
            content[at] ^= 1
            source.write_bytes(content)
        wanted = sign(CLIP, tmp_path / "job.mp4", test_signer, source=source)
        assert provenance.objection(read(tmp_path / "job.mp4"), wanted) is None


def test_another_manifest_than_was_asked_for_is_an_objection(signed: Path) -> None:
    found = read(signed)
    assert provenance.objection(found, asked()) is None
    told = released()
    told["consents"]["a"]["id"] = "another"
    assert provenance.objection(found, asked(told)) is not None
    for change in (
        {"title": "other"},
        {"assertions": [*asked()["assertions"], {"label": "org.example", "data": {}}]},
        {"claim_generator_info": [{"name": "other", "version": "0.1.0"}]},
    ):
        assert provenance.objection(found, {**asked(), **change}) is not None
    assert provenance.objection(None, asked()) is not None
    assert found and "does not hold" in str(provenance.objection(replace(found, state="Invalid"), asked()))


# -- every byte -----------------------------------------------------------------------------------------------------


def test_a_hundred_flipped_bytes_are_all_found(signed: Path, tmp_path: Path) -> None:
    """By the side-car's SHA-256 all of them, and by C2PA alone those of everything that is played."""
    copy = tmp_path / "job.mp4"
    shutil.copy(signed, copy)
    right = provenance.sidecar_path(signed).read_text()
    chance, where = random.Random(7), boxes(copy.read_bytes())
    for at in chance.sample(range(copy.stat().st_size), 100):
        with flipped(copy, at, chance.randrange(8)), provenance.open_file(copy) as stream:
            assert provenance.digest_of(stream) != json.loads(right)["sha256"]
            found = provenance.read(stream)
            if at in where["mdat"] or at in where["moov"]:
                assert found is None or found.altered, at


def test_what_c2pa_leaves_out_of_its_hash_is_as_told(signed: Path, tmp_path: Path) -> None:
    """The content of ftyp and free, and padding in its own box, are what the side-car is there for."""
    copy = tmp_path / "job.mp4"
    shutil.copy(signed, copy)
    where = boxes(copy.read_bytes())
    unseen: dict[str, int] = dict.fromkeys(where, 0)
    for name, span in where.items():
        for at in [*span[:32], *random.Random(1).sample(span, min(100, len(span)))]:
            with flipped(copy, at):
                found = read(copy)
                unseen[name] += bool(found and not found.altered and found.manifest)
    assert unseen["moov"] == unseen["mdat"] == 0
    assert unseen["ftyp"] > 0 and unseen["uuid"] > 0


# -- out of quarantine ----------------------------------------------------------------------------------------------


class Job:
    """A fetched result in quarantine, and what the host says of it."""

    clip = CLIP

    def __init__(self, folder: Path, signer: Credentials) -> None:
        self.quarantine, self.dest, self.signer = folder / ".quarantine" / "job", folder / "job", signer
        self.log: list[dict[str, str]] = []
        self.fetch()
        self.dest.mkdir()

    def fetch(self, report: str = "report") -> None:
        self.quarantine.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.clip, self.quarantine / "job.mp4")
        (self.quarantine / "report.html").write_text(report)
        (self.quarantine / "label.json").write_text("{}")
        files = {path.name: sha256(path) for path in self.quarantine.iterdir()}
        self.told = action.checked({**released(), "files": files})
        self.swap = provenance.swap_assertion(self.told, "0" * 40)

    def publish(self, source: Path = CLIP) -> dict[str, Any]:
        def log(outputs: Any) -> str:
            self.log.append(dict(outputs))
            self.meanwhile()
            return audit_log.append({"event": "released", "outputs": dict(outputs)})

        sidecar, _ = action.publish(
            self.quarantine, self.dest, source, self.told, self.swap, self.signer, label_module(), log
        )
        return sidecar

    def meanwhile(self) -> None:
        """What others do when the video has been signed and read back."""

    def put(self, video: Path) -> None:
        """Release another video, of which the host's account is right."""
        shutil.copy(video, self.quarantine / "job.mp4")
        self.told["files"]["job.mp4"] = sha256(video)

    def at_home(self, signer: Credentials | None = None) -> bool:
        return action.at_home(self.dest, self.told, self.swap, signer or self.signer) is not None


@pytest.fixture
def job(tmp_path: Path, test_signer: Credentials) -> Job:
    return Job(tmp_path / "out", test_signer)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_result_leaves_quarantine_signed_and_is_not_signed_again(job: Job) -> None:
    assert not job.at_home()
    sidecar = job.publish()
    assert names(job.dest) == {"job.mp4", "job.mp4.provenance.json", "report.html"}
    assert sidecar["sha256"] == sha256(job.dest / "job.mp4")
    assert sidecar == json.loads((job.dest / "job.mp4.provenance.json").read_text())
    assert audit_log.has_released(sidecar["audit"], sidecar["sha256"])
    assert "proves nothing" in sidecar["certificate"]["note"]
    assert job.log == [
        {
            str(job.dest / "job.mp4"): sidecar["sha256"],
            str(job.dest / "report.html"): job.told["files"]["report.html"],
        }
    ]
    assert job.at_home()
    job.swap["commit"] = "1" * 40
    assert job.at_home()  # another version of the tool is no reason


def test_a_result_that_is_not_whole_is_not_at_home(job: Job, tmp_path: Path) -> None:
    job.publish()
    for name in names(job.dest):
        path = job.dest / name
        right = path.read_bytes()
        path.write_bytes(right[:-2])
        assert not job.at_home(), name
        path.unlink()
        assert not job.at_home(), name
        path.write_bytes(right)
    assert job.at_home()


def test_another_signer_or_another_content_is_signed_anew(job: Job, tmp_path: Path) -> None:
    job.publish()
    signer = make_signer(tmp_path / "own")
    own = read_credentials(signer.key, signer.chain)
    assert not job.at_home(own)
    assert job.at_home(throwaway_credentials(tmp_path / "another test certificate"))
    job.fetch("another report")
    assert not job.at_home()
    job.signer = own
    job.publish()
    other = make_signer(tmp_path / "other")
    assert not job.at_home(read_credentials(other.key, other.chain))
    assert action.at_home(job.dest, job.told, job.swap, None) is None  # what would be a test certificate
    assert job.at_home() and (job.dest / "report.html").read_text() == "another report"
    found = read(job.dest / "job.mp4")
    assert found and found.signer == "Jo Signer"


def test_what_was_released_anew_is_signed_anew(job: Job) -> None:
    job.publish()
    digest = job.told["files"]["job.mp4"]
    job.told["files"]["job.mp4"] = "0" * 64
    assert not job.at_home()
    job.told["files"]["job.mp4"] = digest
    assert job.at_home()
    job.swap["model_digest"] = "0" * 64
    assert not job.at_home()


def test_the_video_appears_last_and_its_side_car_before_it(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real = provenance.put

    def put(names: Any, *folders: Any) -> None:
        order.extend(names)
        real(names, *folders)

    monkeypatch.setattr(provenance, "put", put)
    job.publish()
    assert order[-2:] == ["job.mp4.provenance.json", "job.mp4"]


@pytest.mark.parametrize("step", range(1, 4))
def test_a_run_cut_off_while_it_publishes_is_made_good_by_the_next(
    job: Job, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    left, real = [step], os.replace

    def replace(name: str, target: Path, **how: Any) -> None:
        left[0] -= bool(how)
        if left[0] == 0:
            shutil.copytree(job.dest / ".publishing", job.dest / "of a kill")  # which tidies nothing up
            raise KeyboardInterrupt
        real(name, target, **how)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "replace", replace)
        job.publish()
    assert "job.mp4" not in names(job.dest)
    assert not job.at_home()
    (job.dest / "of a kill").rename(job.dest / ".publishing")
    job.publish()
    assert job.at_home() and names(job.dest) == {"job.mp4", "job.mp4.provenance.json", "report.html"}


def test_what_is_signed_is_what_was_looked_at(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever may write in quarantine writes another video into the file between the look and the signature."""
    foreign, look = labelled(tmp_path / "foreign.mp4", without=range(30)).read_bytes(), label_look.objection

    def objection(*what: Any) -> str | None:
        found = look(*what)
        (job.quarantine / "job.mp4").write_bytes(foreign)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(label_look, "objection", objection)
        job.publish()
    assert look(job.dest / "job.mp4", label_module(), job.told["label"]) is None
    assert job.at_home()


def test_what_is_published_is_what_was_read_back(job: Job, tmp_path: Path) -> None:
    """Whoever may write beside the result puts files of the same names in the place of what was signed."""

    def put_others_there() -> None:
        for path in list(job.dest.iterdir()):
            aside = path.rename(path.with_name("aside"))
            if aside.is_dir():
                shutil.copytree(aside, path)
            for file in path.iterdir() if path.is_dir() else [path]:
                file.write_text("foreign")

    job.meanwhile = put_others_there  # type: ignore[method-assign]
    sidecar = job.publish()
    assert sidecar["sha256"] == sha256(job.dest / "job.mp4")
    assert (job.dest / "report.html").read_text() == "report"


def test_nobody_else_can_open_what_is_being_signed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = provenance.sign, []

    def sign(*what: Any) -> None:
        seen.extend((path.name, stat.S_IMODE(path.stat().st_mode)) for path in job.dest.iterdir())
        seen.append(os.fstat(what[0].fileno()).st_nlink)
        real(*what)

    monkeypatch.setattr(provenance, "sign", sign)
    job.publish()
    assert seen == [(".publishing", 0o700), 0]


def test_a_folder_of_somebody_elses_is_not_signed_in(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.mkdir

    def mkdir(path: Path, **how: Any) -> None:
        real(path, **how)
        if path.name == ".publishing":
            path.rmdir()
            real(path)
            path.chmod(0o777)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(RefusedError, match="Others may write in") as refused:
        job.publish()
    assert refused.value.code == 32 and names(job.dest) == set() and job.log == []
    assert (job.quarantine / "job.mp4").is_file()


@pytest.mark.parametrize("log", ["none", "broken", "another event", "another file", "forged"])
def test_a_result_is_at_home_where_the_log_says_that_it_was_released_here(
    job: Job, audit: Path, tmp_path: Path, log: str
) -> None:
    """Anybody can write a side-car, and a certificate of any name."""
    job.publish()
    video, beside = job.dest / "job.mp4", job.dest / "job.mp4.provenance.json"
    sidecar = json.loads(beside.read_text())
    if log == "none":
        audit.rename(tmp_path / "another controller's")
    elif log == "broken":
        (audit / "log.jsonl").write_bytes((audit / "log.jsonl").read_bytes()[:-2])
    elif log == "another event":
        sidecar["audit"] = audit_log.append({"event": "quarantined", "outputs": {"job.mp4": sidecar["sha256"]}})
    else:
        stranger = make_signer(tmp_path / "stranger", name=TEST_NAME)
        foreign = labelled(tmp_path / "foreign.mp4", without=range(30))
        sign(foreign, video, read_credentials(stranger.key, stranger.chain), sidecar["manifest"])
        sidecar["sha256"] = sha256(video)
        sidecar["audit"] = sidecar["audit"] if log == "another file" else "0" * 64
    beside.write_text(json.dumps(sidecar))
    assert not job.at_home()
    if log != "broken":  # nothing is released with such a log
        job.publish()
        assert job.at_home()


def test_a_test_certificate_is_not_ones_own_whatever_the_side_car_says(job: Job, tmp_path: Path) -> None:
    job.publish()
    signer = make_signer(tmp_path / "own")
    own = read_credentials(signer.key, signer.chain)
    beside = job.dest / "job.mp4.provenance.json"
    sidecar = json.loads(beside.read_text())
    sidecar["certificate"] = {"kind": own.kind, "name": own.signer, "sha256": own.fingerprint}
    beside.write_text(json.dumps(sidecar))
    assert not job.at_home(own)


def test_what_the_host_did_not_release_stays_in_quarantine(job: Job) -> None:
    (job.quarantine / "job.mp4").write_bytes(job.clip.read_bytes() + b"\0")
    with pytest.raises(RefusedError, match="not what the host released") as refused:
        job.publish()
    assert refused.value.code == 32
    (job.quarantine / "job.mp4").unlink()
    (job.quarantine / "job.mp4").symlink_to(job.clip)
    with pytest.raises(OSError):
        job.publish()
    (job.quarantine / "job.mp4").unlink()
    with pytest.raises(RefusedError, match="not brought home"):
        job.publish()
    assert names(job.dest) == set() and job.log == []


def test_another_source_is_refused(job: Job, tmp_path: Path) -> None:
    consent = host_programs.role_module(host_programs.role_files(), "consent")
    action.see_source(CLIP, job.told, consent)
    with pytest.raises(RefusedError) as refused:
        action.see_source(CLIP.with_name("clipB.mp4"), job.told, consent)
    assert refused.value.code == 27
    with pytest.raises(RefusedError, match="put it back"):
        action.see_source(tmp_path / "none.mp4", job.told, consent)


def test_a_folder_is_the_source_that_its_record_says(job: Job, tmp_path: Path) -> None:
    """By the one way to name a folder's content, in which `\\` and line ends are written otherwise."""
    consent = host_programs.role_module(host_programs.role_files(), "consent")
    for name in ("a\\b.png", "c\nd.png"):
        (tmp_path / name).write_text(name)
    job.told["sources"]["a"] = consent.digest_of(tmp_path)
    action.see_source(tmp_path, job.told, consent)
    (tmp_path / "link").symlink_to("none")
    with pytest.raises(RefusedError) as refused:
        action.see_source(tmp_path, job.told, consent)
    assert refused.value.code == 30


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"without": range(30)}, "on 30 of the 30 frames"),
        ({"without": [17]}, "on 1 of the 30 frames"),
        ({"opacity": 0.4}, "on 30 of the 30 frames"),
    ],
)
def test_a_video_without_the_label_is_not_signed_whatever_the_host_says(
    job: Job, tmp_path: Path, how: dict[str, Any], said: str
) -> None:
    job.put(labelled(tmp_path / "other.mp4", **how))
    with pytest.raises(RefusedError, match=said) as refused:
        job.publish()
    assert refused.value.code == 32 and names(job.dest) == set() and job.log == []


def test_a_label_that_tells_nothing_is_not_signed(job: Job) -> None:
    job.told["label"] = {**job.told["label"], "text": "Holidays"}
    with pytest.raises(RefusedError, match="no label that tells that AI made it"):
        job.publish()


def test_a_video_that_lasts_longer_than_its_source_is_not_signed(job: Job, tmp_path: Path) -> None:
    short = labelled(tmp_path / "short.mp4", frames=5)
    job.put(labelled(tmp_path / "long.mp4", frames=60))
    with pytest.raises(RefusedError, match=r"lasts 2\.4 s"):
        job.publish(short)
    job.publish(tmp_path)  # of a folder of images that is not known


def test_a_signature_that_does_not_hold_stays_in_quarantine(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "objection", lambda *_: "its signature does not hold (test)")
    with pytest.raises(RefusedError, match="did not stand the test") as refused:
        job.publish()
    assert refused.value.code == 32
    assert names(job.dest) == set() and (job.quarantine / "job.mp4").is_file() and job.log == []


def test_what_c2pa_cannot_sign_stays_in_quarantine(job: Job) -> None:
    with pytest.raises(ProvenanceError, match="stays in quarantine"):
        job.signer = replace(job.signer, chain=b"nonsense")
        job.publish()
    (job.quarantine / "job.mp4").write_text("no video")
    job.told["files"]["job.mp4"] = sha256(job.quarantine / "job.mp4")
    with pytest.raises(RefusedError, match=r"cannot be played .* stays in quarantine"):
        job.publish()
    assert names(job.dest) == set()


def test_a_log_that_cannot_be_written_lets_nothing_out(job: Job) -> None:
    def log(_: Any) -> str:
        raise RefusedError("The audit log cannot be written.", 32)

    with pytest.raises(RefusedError):
        action.publish(job.quarantine, job.dest, CLIP, job.told, job.swap, job.signer, label_module(), log)
    assert names(job.dest) == set()


@pytest.mark.parametrize(
    "change",
    [
        {"video": "../job.mp4"},
        {"video": "other.mp4"},
        {"files": {"job.mp4": "f" * 64, "../x": "f" * 64}},
        {"files": {"job.mp4": "f" * 64, ".bashrc": "f" * 64}},
        {"files": {"job.mp4": "f" * 64, "job.mp4.provenance.json": "f" * 64}},
        {"files": {"job.mp4": "f" * 64, "unlabelled.mp4": "f" * 64}},
        {"video": "../job.mp4", "files": {"../job.mp4": "f" * 64}},
        {"files": {"job.mp4": "nonsense"}},
        {"consents": {}},
        {"consents": {"a": {"id": "x", "digest": "a" * 64}}},
        {"sources": {"a": "a" * 64}},
        {"engine": None},
        {"model": {"digest": "f" * 64}},
        {"label": None},
    ],
)
def test_nonsense_from_the_host_is_refused(change: dict[str, Any]) -> None:
    assert action.checked(released())
    with pytest.raises(RefusedError, match="makes no sense"):
        action.checked({**released(), **change})


# -- the task -------------------------------------------------------------------------------------------------------


class Task:
    """The task on the controller, a host whose answer is given, and what came into the audit log."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, key: str = "", chain: str = "") -> None:
        self.job = Job(folder / "out", throwaway_credentials(folder / "state" / "test-certificate"))
        self.answer: Any = self.job.told
        self.log: list[dict[str, Any]] = []
        self.check = self.play_check = False
        self.there = True
        self.spec = {
            "supervisor": "/srv/bin/supervisor.py",
            "job_dir": "/srv/jobs/job",
            "quarantine": str(self.job.quarantine),
            "dest": str(self.job.dest),
            "source": str(CLIP),
            "record_a": "a.yml",
            "record_b": "b.yml",
            "patience_s": 120,
            "signing_key": key,
            "signing_certificate": chain,
        }
        self.plugin = action.ActionModule.__new__(action.ActionModule)
        monkeypatch.setattr(signing_certificate, "state_home", lambda: folder / "state")
        monkeypatch.setattr(action.ActionBase, "run", lambda *_: {})
        self.real_append = audit_log.append
        monkeypatch.setattr(audit_log, "append", self.append)
        self.plugin.validate_argument_spec = lambda **_: (None, dict(self.spec))
        self.plugin._loader = SimpleNamespace(path_dwim=str)
        self.plugin._remote_file_exists = lambda _: self.there
        self.revoked: dict[str, datetime.date] = {}
        self.given: Any = {side: self.consent(side) for side in "ab"}
        self.fetched: list[dict[str, Any]] = []
        self.fetch: Any = {"changed": True}
        shutil.move(self.job.quarantine, folder / "result")
        consent = SimpleNamespace(
            read_revocations=lambda: SimpleNamespace(ids=self.revoked),
            pair=self.pair,
            digest_of=sha256,
            ConsentError=RefusedError,
        )
        self.result = folder / "result"
        modules = {"consent": consent, "release/label": label_module()}
        monkeypatch.setattr(action, "role_module", lambda _, name: modules[name])
        self.plugin._connection = self.plugin._play_context = self.plugin._templar = None
        loader = SimpleNamespace(get=self.transfer)
        self.plugin._shared_loader_obj = SimpleNamespace(action_loader=loader)
        monkeypatch.setattr(action, "host_programs", lambda *_: SimpleNamespace(ask=self.ask))

    def consent(self, side: str) -> SimpleNamespace:
        """A consent as the record on the controller gives it."""
        told, digests = released()["consents"][side], [released()["sources"][side]]
        return SimpleNamespace(
            record=SimpleNamespace(id=told["id"]),
            digest=told["digest"],
            signer=told["signer"],
            covers=lambda digest: digest in digests,
        )

    def pair(self, a: Path, b: Path) -> Any:
        assert (str(a), str(b)) == ("a.yml", "b.yml")
        if isinstance(self.given, Exception):
            raise self.given
        return self.given

    def transfer(self, name: str, task: Any, **_: Any) -> Any:
        assert name == "faceswap.ops.transfer"

        def run(task_vars: Any) -> Any:
            self.fetched.append(task.args)
            shutil.copytree(self.result, self.job.quarantine, dirs_exist_ok=True)
            if isinstance(self.fetch, Exception):
                raise self.fetch
            return self.fetch

        return SimpleNamespace(run=run)

    def ask(self, verb: str, job_dir: str) -> dict[str, Any]:
        """What the host answers, as `host_programs` gives it."""
        assert (verb, job_dir) == ("released", self.spec["job_dir"])
        if isinstance(self.answer, Exception):
            raise self.answer
        told: dict[str, Any] = json.loads(json.dumps(self.answer))
        return told

    def append(self, entry: dict[str, Any]) -> str:
        self.log.append(entry)
        return self.real_append(entry)

    def run(self) -> dict[str, Any]:
        task = SimpleNamespace(check_mode=self.check or self.play_check)
        task.copy = lambda: SimpleNamespace(args={})
        self.plugin._task = task
        result: dict[str, Any] = self.plugin.run(
            task_vars={"inventory_hostname": "studio", "ansible_check_mode": self.play_check}
        )
        return result


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    return Task(tmp_path, monkeypatch)


def test_the_task_signs_once_and_says_with_what(task: Task) -> None:
    task.check = True
    assert task.run() == {"changed": True, "at_home": False}
    task.check = False
    first = task.run()
    assert (first["changed"], first["certificate"], first["signed_by"]) == (True, "test", TEST_NAME)
    assert "TEST certificate: proves nothing" in first["msg"]
    assert re.search(r"; signing took \d+\.\d\d s$", first["msg"]) and first["seconds"] < 5
    assert not task.job.quarantine.exists()
    (fetched,) = task.fetched
    assert (fetched["src"], fetched["dest"]) == ("/srv/jobs/job/result", str(task.job.quarantine))
    assert (fetched["to"], fetched["mirror"]) == ("controller", True)
    (line,) = task.log
    assert (line["event"], line["job"], line["host"]) == ("released", "job", "studio")
    assert line["outputs"][str(task.job.dest / "job.mp4")] == first["sha256"]
    assert set(line) <= set(action.audit_log.FIELDS)
    task.check = True
    assert task.run() == {"changed": False, "at_home": True, "certificate": "test", "signed_by": TEST_NAME}
    task.check = False
    second = task.run()
    assert (
        not second["changed"]
        and second["seconds"] is None
        and "took" not in second["msg"]
        and second["sha256"] == first["sha256"]
        and len(task.log) == len(task.fetched) == 1
    )


def test_the_task_signs_with_ones_own_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = make_signer(tmp_path / "own")
    task = Task(tmp_path, monkeypatch, str(signer.key), str(signer.chain))
    result = task.run()
    assert (result["certificate"], result["signed_by"]) == ("own", "Jo Signer")
    assert "TEST" not in result["msg"]
    signer.chain.write_text("gone")
    refused = task.run()
    assert refused["failed"] and refused["consent_code"] == 32


def test_in_check_mode_nothing_is_made_or_logged(task: Task) -> None:
    shutil.rmtree(task.job.dest)
    shutil.rmtree(signing_certificate.state_home())
    task.play_check = True
    assert task.run()["changed"]
    task.answer = RefusedError("The release stage was never run.", 30)
    assert task.run() == {"changed": True, "at_home": False, "msg": "The release stage was never run."}
    task.there = False
    assert task.run()["changed"]
    task.answer, task.there = RefusedError("The consent of A was revoked.", 24), True
    assert task.run() == {"failed": True, "msg": "The consent of A was revoked.", "consent_code": 24}
    assert task.log == [] and not task.job.dest.exists() and not signing_certificate.state_home().exists()


@pytest.mark.parametrize("look", [False, True])
def test_a_refusal_is_told_with_its_code_and_logged(task: Task, look: bool) -> None:
    task.check = look
    task.answer = RefusedError("The consent of A was revoked.", 24)
    assert task.run() == {"failed": True, "msg": "The consent of A was revoked.", "consent_code": 24}
    assert [(line["event"], line["code"]) for line in task.log] == ([] if look else [("quarantined", 24)])
    assert task.fetched == []


def test_a_failed_signature_is_told_with_32(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "objection", lambda *_: "its signature does not hold (test)")
    refused = task.run()
    assert refused["consent_code"] == 32 and refused["failed"]
    assert task.job.quarantine.is_dir() and names(task.job.dest) == set()
    (line,) = task.log
    assert line["code"] == 32 and line["consents"]["a"]["id"] == "consent-a"
    assert str(task.job.quarantine / "job.mp4") in line["outputs"]


def test_programs_that_are_not_the_roles_own_are_no_reason_in_check_mode_alone(task: Task) -> None:
    task.answer = RefusedError("The programs differ.", 30, "supervisor.py")
    task.check = True
    assert task.run()["changed"]
    task.check = False
    assert task.run()["consent_code"] == 30


def test_what_was_revoked_here_does_not_leave_whatever_the_host_says(task: Task) -> None:
    task.revoked = {"consent-b": datetime.date(2026, 11, 1)}
    refused = task.run()
    assert refused["consent_code"] == 24 and "consent-b of side B was revoked on 2026-11-01" in refused["msg"]
    assert names(task.job.dest) == set() and task.fetched == []


@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("what", ["id", "digest", "source"])
def test_another_consent_than_the_one_given_here_brings_nothing(task: Task, side: str, what: str) -> None:
    given = task.given[side]
    if what == "id":
        given.record.id = "another"
    elif what == "digest":
        given.digest = "0" * 64
    else:
        given.covers = lambda _: False
    assert task.run()["consent_code"] == 27
    assert task.fetched == [] and names(task.job.dest) == set()
    (line,) = task.log
    assert line["event"] == "quarantined" and line["consents"]["a"]["id"] and line["outputs"] == {}


@pytest.mark.parametrize("check", [False, True])
def test_without_consents_that_hold_here_the_host_is_not_even_asked(task: Task, check: bool) -> None:
    task.play_check, task.answer = check, AssertionError("asked")
    task.given = RefusedError("The signature of side A is missing.", 20)
    assert task.run() == {"failed": True, "msg": "The signature of side A is missing.", "consent_code": 20}
    task.spec["record_b"] = ""
    assert "faceswap_run_consent_b" in task.run()["msg"]
    assert len(task.log) == (0 if check else 2) and task.fetched == []


def test_another_source_brings_nothing(task: Task) -> None:
    task.spec["source"] = str(CLIP.with_name("clipB.mp4"))
    assert task.run()["consent_code"] == 27 and task.fetched == []


def test_what_lies_in_quarantine_after_a_refusal_is_logged(task: Task, tmp_path: Path) -> None:
    labelled(task.result / "job.mp4", without=[3])
    task.job.told["files"]["job.mp4"] = sha256(task.result / "job.mp4")
    assert task.run()["consent_code"] == 32
    task.answer = RefusedError("The host knows of a revocation.", 24)  # and tells nothing else
    assert task.run()["consent_code"] == 24
    for line in task.log:
        assert line["consents"]["b"] == {"id": "consent-b", "digest": "b" * 64, "signer": "berta@example.org"}
        assert line["outputs"][str(task.job.quarantine / "job.mp4")] == task.job.told["files"]["job.mp4"]


def test_a_host_that_is_lost_meanwhile_is_told_and_what_came_is_logged(task: Task) -> None:
    task.fetch = {"unreachable": True, "msg": "The connection was lost."}
    assert task.run() == task.fetch
    task.fetch = AnsibleActionFail("The disk is full.")
    with pytest.raises(AnsibleActionFail, match="disk is full"):
        task.run()
    assert [line["message"] for line in task.log] == ["The connection was lost.", "The disk is full."]
    assert all(line["outputs"] for line in task.log) and names(task.job.dest) == set()


def test_a_user_who_is_yet_to_be_made_is_no_reason_in_check_mode(task: Task) -> None:
    task.play_check, task.answer = True, AnsibleError("sudo: unknown user faceswap")
    assert task.run()["changed"]
    task.play_check = False
    with pytest.raises(AnsibleError):
        task.run()


def test_only_what_left_quarantine_is_cleared(tmp_path: Path) -> None:
    folder = tmp_path / ".quarantine" / "job"
    folder.mkdir(parents=True)
    (folder / "job.mp4").touch()
    (folder / "mine").touch()
    action.clear(folder, ["job.mp4"])
    assert names(folder) == {"mine"}
    (folder / "mine").unlink()
    action.clear(folder, ["job.mp4"])
    assert not folder.parent.exists()


def test_a_certificate_that_has_ended_since_is_told_from_a_change(tmp_path: Path) -> None:
    expired = Reading("Invalid", ("signingCredential.untrusted", "signingCredential.expired"))
    assert expired.expired and not expired.altered
    both = Reading("Invalid", ("signingCredential.expired", "assertion.bmffHash.mismatch"))
    assert both.altered


def test_the_library_is_asked_to_look_nowhere() -> None:
    verify = provenance.SETTINGS["verify"]
    assert verify["remote_manifest_fetch"] is verify["ocsp_fetch"] is False


def test_a_file_that_is_no_video_is_read_without_a_crash() -> None:
    for content in (b"", b"\0", b"\0\0\0\x18ftypmp42", b"\xff" * 4096):
        found = provenance.read(io.BytesIO(content))
        assert found is None or not found.manifest
    assert "DSA" in KEYS
