# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Oracle's SDK behind one door: sign in, call with retries, and errors that name cause and remedy.

Nothing else reads the SDK's configuration or its errors. How it signs and where it sends is the SDK's own
matter: proxies and certificate authorities come from the environment (HTTPS_PROXY, REQUESTS_CA_BUNDLE).
"""

from __future__ import annotations

import base64
import configparser
import difflib
import email.utils
import hashlib
import json
import random
import re
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import env_fallback

try:
    import oci
    from cryptography.hazmat.primitives import serialization
    from oci.core import BlockstorageClient, ComputeClient, VirtualNetworkClient
    from oci.core import models as models  # for the callers: requests are made of these
    from oci.identity import IdentityClient
except ImportError:  # said by connect
    oci = models = None

AUTH_SPEC: dict[str, dict[str, Any]] = {
    "config_file": {
        "type": "path",
        "default": "~/.oci/config",
        "fallback": (env_fallback, ["OCI_CLI_CONFIG_FILE"]),
    },
    "profile": {"type": "str", "default": "DEFAULT", "fallback": (env_fallback, ["OCI_CLI_PROFILE"])},
    "auth": {
        "type": "str",
        "default": "api_key",
        "choices": ["api_key", "security_token", "instance_principal"],
        "fallback": (env_fallback, ["OCI_CLI_AUTH"]),
    },
}

SETUP = "docs/oci-setup.md"
AT_ONCE = 6  # requests: more of them are answered with 429
LOST = "ConnectionLost"  # where Oracle has a code of its own, ours for no answer at all
_TIMEOUT_S = (10, 60)  # to connect, to answer
_RETRIES_END_S = 90  # after this much waiting an error is final
_CONNECTION_TRIES = 4
_SKEW_S = 300  # Oracle refuses a request whose date is further off

# Which policy lets a method pass: the first expression that fits its name
# (Oracle's core services policy reference, March 2026; docs/oci-setup.md has the statements to paste).
_POLICIES = tuple(
    (re.compile(name), verb_and_family)
    for name, verb_and_family in (
        (r"list_region_subscriptions", "inspect tenancies in tenancy"),
        (r"list_limit_(definitions|values)", "inspect resource-availability in tenancy"),
        (r"get_resource_availability", "read resource-availability in tenancy"),
        (r"create_compute_capacity_report", "manage compute-capacity-reports in tenancy"),
        (r".*_work_requests?(_errors|_logs)?", "manage instances"),  # as what the request carries out
        (r".*_(compartments?|availability_domains)", "inspect compartments in tenancy"),
        (r".*_image.*", "read instance-images"),
        (r".*_vnic_attachments", "inspect vnic-attachments"),
        (r".*_vnic", "use vnics"),
        (r".*_boot_volume_attachments", "inspect volume-attachments"),
        (r".*_boot_volumes?", "manage volumes"),
        (r"launch_instance", "manage instances, use vnics, manage subnets and network-security-groups"),
        (r"terminate_instance", "manage instances, volumes and volume-attachments, use vnics"),
        (r".*_(instances?|shapes)|instance_action", "manage instances"),
        (r".*_network_security_group.*", "manage network-security-groups"),
        (r"[a-z]+_(.+?)s?", r"manage \1s"),
    )
)


class OciError(Exception):
    """One sentence for the user; `status`, `code` and `said` are Oracle's, None and '' where it never answered.

    `unsure`: an earlier try of the same request got no clear answer, and may have been carried out.
    """

    def __init__(self, sentence: str, status: int | None = None, code: str = "", said: str = "") -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code
        self.said = said
        self.unsure = False

    @property
    def not_found(self) -> bool:
        """The thing is gone, or may not be seen: Oracle does not tell these apart."""
        return self.status == 404

    @property
    def conflict(self) -> bool:
        """Something else has to end before: what a deletion out of order, or too early, is answered."""
        return self.status in (409, 412) and self.code != "InvalidatedRetryToken"

    @property
    def no_capacity(self) -> bool:
        """Oracle has no free host; the answer that says so is a server's fault in form only."""
        return self.status is not None and self.status >= 500 and "capacity" in self.said.lower()

    @property
    def limit(self) -> bool:
        """A service limit of the tenancy, or a quota of the compartment, is in the way."""
        return self.code in ("LimitExceeded", "QuotaExceeded")

    @property
    def unknown(self) -> bool:
        """Whether the request was carried out cannot be known: no answer came, or a server failed on the way."""
        return self.code == LOST or (self.status is not None and self.status >= 500 and not self.no_capacity)


class Cloud:
    """A tenancy, signed in to. Clients are made on first use, one a service and region."""

    def __init__(self, config: dict[str, Any], signer: Any, who: str, remedy: str) -> None:
        self.tenancy: str = config["tenancy"]
        self.region: str = config["region"]
        self._home: str = config.get("home") or config["region"]  # where the tenancy itself is asked about
        self._config = config
        self._signer = signer
        self._who = who  # for sentences: "profile DEFAULT of ~/.oci/config"
        self._remedy = remedy  # where its signature is not accepted
        self._clients: dict[tuple[type, str], Any] = {}
        self._lock = threading.Lock()

    def compute(self, region: str) -> Any:
        """The SDK's ComputeClient."""
        return self._client(ComputeClient, region)

    def network(self, region: str) -> Any:
        """The SDK's VirtualNetworkClient."""
        return self._client(VirtualNetworkClient, region)

    def storage(self, region: str) -> Any:
        """The SDK's BlockstorageClient."""
        return self._client(BlockstorageClient, region)

    def identity(self, region: str) -> Any:
        """The SDK's IdentityClient."""
        return self._client(IdentityClient, region)

    def limits(self, region: str) -> Any:
        """The SDK's LimitsClient."""
        from oci.limits import LimitsClient  # most runs have no need of it

        return self._client(LimitsClient, region)

    def work_requests(self, region: str) -> Any:
        """The SDK's WorkRequestClient."""
        from oci.work_requests import WorkRequestClient  # most runs have no need of it

        return self._client(WorkRequestClient, region)

    def regions(self) -> list[str]:
        """The names of the regions that the tenancy is subscribed to, its home first."""
        found = self.listing(self.identity(self._home).list_region_subscriptions, self.tenancy)
        return [row.region_name for row in sorted(found, key=lambda row: (not row.is_home_region, row.region_name))]

    def compartments(self) -> list[str]:
        """OCIDs of the root compartment and of every active one below it that can be seen."""
        found = self.listing(
            self.identity(self._home).list_compartments,
            self.tenancy,
            compartment_id_in_subtree=True,
            access_level="ACCESSIBLE",
            lifecycle_state="ACTIVE",
        )
        return [self.tenancy, *(row.id for row in found)]

    def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the data of the answer to a client's method."""
        return self.answer(method, *args, **kwargs).data

    def listing(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Return the rows of all pages; a page may be empty and yet be followed by another."""
        rows: list[Any] = []
        page = None
        while True:
            answer = self.answer(method, *args, **kwargs, **({"page": page} if page else {}))
            rows += answer.data
            page = answer.headers.get("opc-next-page")
            if not page:
                return rows

    def at_once(self, ask: Callable[[str], Any], names: Iterable[str]) -> list[Any]:
        """Ask for several things side by side: on a real line each answer takes a fifth of a second, or more."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(ask, names))

    def answer(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a client's method, again where another try may help, and return the SDK's Response.

        Tried again: too many requests (429), something that is not ready (409 IncorrectState), a server's
        fault (5xx, but for lack of capacity), a lost connection. What makes something must therefore be given
        an `opc_retry_token`, by which Oracle knows the second try for the same request. Raises OciError.
        """
        waits = _waits()
        lost = 0
        unsure = False
        while True:
            try:
                return method(*args, **kwargs)
            except oci.exceptions.ServiceError as error:
                refused = self._refused(error, method)
                wait = next(waits, None) if _may_pass(refused) else None
                if wait is None:
                    refused.unsure = unsure
                    raise refused from None
                unsure = unsure or refused.unknown
                time.sleep(max(wait, _retry_after(error)))
            except (oci.exceptions.RequestException, oci.exceptions.ConnectTimeout, ConnectionError) as error:
                lost += 1
                unsure = True
                if lost >= _CONNECTION_TRIES:
                    raise OciError(
                        f"Oracle Cloud cannot be reached ({_reason(error)}): check the network, HTTPS_PROXY, and "
                        "the clock and certificates of this machine, then run the same again.",
                        code=LOST,
                    ) from None
                time.sleep(next(waits, 1.0))

    def _client(self, kind: type, region: str) -> Any:
        with self._lock:  # made once, by whichever thread asks first
            if (kind, region) not in self._clients:
                _check_region(region, self._who)
                options: dict[str, Any] = {"timeout": _TIMEOUT_S, "retry_strategy": oci.retry.NoneRetryStrategy()}
                if self._signer is not None:
                    options["signer"] = self._signer
                self._clients[kind, region] = kind({**self._config, "region": region}, **options)
            return self._clients[kind, region]

    def _refused(self, error: Any, method: Callable[..., Any]) -> OciError:
        client = method.__self__  # type: ignore[attr-defined]
        said = " ".join(str(error.message).split())
        sentence = f"Oracle answered {method.__name__} with {error.status} {error.code}: {said}"
        if error.status == 401:
            sentence = self._not_signed_in(error, client)
        elif error.status == 404:
            sentence = (
                f"{method.__name__} was answered 'not authorized or not found': what it names is not there, or the "
                f"policy 'Allow group <your group> to {statement(method.__name__)}' is "
                f"missing ({SETUP} has all of them to paste)."
            )
        elif error.code in ("LimitExceeded", "QuotaExceeded"):
            sentence = f"A limit of the tenancy is reached: {said} ({SETUP}, 'Limits', says where to ask for more.)"
        return OciError(sentence, error.status, str(error.code), said)

    def _not_signed_in(self, error: Any, client: Any) -> str:
        region = next(region for (_, region), known in list(self._clients.items()) if known is client)
        skew = _clock_skew(error.headers or {})
        if abs(skew) > _SKEW_S:
            return (
                f"This machine's clock is {abs(skew) / 60:.0f} minutes {'behind' if skew > 0 else 'ahead'}, and "
                "Oracle refuses requests that are more than 5 minutes off: set the clock (timedatectl set-ntp true)."
            )
        return f"Oracle did not accept the signature of {self._who} in {region}: {self._remedy}"


def connect(config_file: str, profile: str, auth: str, region: str | None) -> Cloud:
    """Read the profile, check all of it that can be checked here, and return the tenancy. Sends nothing.

    (But for `instance_principal`, whose key comes from the metadata service of the instance.) `region` None
    takes the profile's. Raises OciError.
    """
    if oci is None:
        raise OciError(
            "The Python package oci is not installed in the environment that runs Ansible: run 'make oci', or there "
            "python -m pip install --require-hashes -r requirements/oci.txt."
        )
    if auth == "instance_principal":
        return _instance_principal(region)
    path = Path(config_file).expanduser()
    who = f"profile {profile} of {config_file}"
    config = {**oci.config.DEFAULT_CONFIG, **_read_profile(path, profile, auth)}
    config["log_requests"] = False
    config["home"] = config.get("region")
    config["region"] = region or config["home"]
    _check_region(config["region"], who)
    needed = ["tenancy", "key_file", *(["user", "fingerprint"] if auth == "api_key" else ["security_token_file"])]
    for name in needed:
        if not config.get(name):
            raise OciError(f"The {who} has no {name} ({SETUP} shows a complete profile).")
    key = _private_key(Path(config["key_file"]).expanduser(), config.get("pass_phrase"), who)
    if auth == "security_token":
        token = _session_token(Path(config["security_token_file"]).expanduser(), profile)
        signer = oci.auth.signers.SecurityTokenSigner(token, key)
        return Cloud(config, signer, who, f"its session has ended; {_new_session(profile)}, and the same again.")
    _check_fingerprint(key, config["fingerprint"], who)
    try:
        oci.config.validate_config(config)
    except oci.exceptions.InvalidConfig as error:
        raise OciError(f"The {who} is not valid: {error.args[0]} ({SETUP} shows a valid one).") from None
    remedy = (
        "check that its user, tenancy and fingerprint are right, that the public half of its key is among the user's "
        f"API keys, and that the tenancy is subscribed to the region ({SETUP}, 'API key')."
    )
    return Cloud(config, None, who, remedy)


def as_dict(details: Any) -> Any:
    """A request's model as plain data."""
    return oci.util.to_dict(details)


def statement(method: str) -> str:
    """The policy, without its subject, that allows a client's method: '<verb> <family> in compartment <...>'."""
    for name, text in _POLICIES:
        if found := name.fullmatch(method):
            policy = found.expand(text).replace("_", "-")
            return policy if policy.endswith("in tenancy") else f"{policy} in compartment <your compartment>"
    raise AssertionError(method)  # the last expression fits every method


def _read_profile(path: Path, profile: str, auth: str) -> dict[str, str]:
    # No default section: whether a profile says something itself has to be known. The SDK's has one, DEFAULT.
    parser = configparser.ConfigParser(interpolation=None, default_section="")
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OciError(
            f"The OCI configuration file {path} cannot be read ({error.strerror}): make it as {SETUP}, 'API key', "
            "says, or name yours with config_file (OCI_CLI_CONFIG_FILE)."
        ) from None
    except (configparser.Error, UnicodeDecodeError):
        raise OciError(f"{path} is not an OCI configuration file: {SETUP} shows how one looks.") from None
    if profile not in parser:
        known = ", ".join(parser.sections()) or "none"
        raise OciError(f"There is no profile {profile} in {path} (it has: {known}): name one of these, or add it.")
    if auth == "api_key" and "security_token_file" in parser[profile]:
        raise OciError(
            f"The profile {profile} of {path} is a session profile: set auth to security_token "
            "(OCI_CLI_AUTH=security_token)."
        )
    return {**(parser["DEFAULT"] if parser.has_section("DEFAULT") else {}), **parser[profile]}


def _check_region(region: str | None, who: str) -> None:
    if not region:
        raise OciError(f"No region is set: add 'region=' to {who}, or give one.")
    if not oci.regions.is_region(region):
        near = difflib.get_close_matches(region, oci.regions.REGIONS, 1, 0.5)
        hint = f"; is {near[0]} meant?" if near else "."
        raise OciError(f"There is no region {region} (they are named like us-ashburn-1){hint}")


def _private_key(path: Path, pass_phrase: str | None, who: str) -> Any:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            raise OciError(f"The private key {path} can be read by others (mode {mode:04o}): chmod 600 '{path}'.")
        return oci.signer.load_private_key(path.read_bytes().strip(), pass_phrase)
    except OSError as error:
        raise OciError(f"The key_file {path} of {who} cannot be read: {error.strerror}; correct its path.") from None
    except oci.exceptions.MissingPrivateKeyPassphrase:
        raise OciError(f"The key {path} has a passphrase: add pass_phrase= to {who}.") from None
    except (oci.exceptions.InvalidPrivateKey, ValueError, TypeError):
        kind = "a public key" if b"PUBLIC" in path.read_bytes() else "no private key, or its pass_phrase is wrong"
        raise OciError(f"The key_file {path} of {who} is {kind}: name the private key of the pair there.") from None


def _check_fingerprint(key: Any, fingerprint: str, who: str) -> None:
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    real = hashlib.md5(der, usedforsecurity=False).digest().hex(":")
    if real != fingerprint.strip().lower():
        raise OciError(
            f"The key_file and the fingerprint of {who} do not belong together: the key's fingerprint is {real}."
        )


def _session_token(path: Path, profile: str) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
        payload = token.split(".")[1]
        expires = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
    except (OSError, ValueError, KeyError, IndexError):
        raise OciError(
            f"{path} holds no session token: run 'oci session authenticate --profile-name {profile}'."
        ) from None
    if expires <= time.time():
        when = datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%d %H:%M UTC")
        raise OciError(f"The session token of profile {profile} expired at {when}: {_new_session(profile)}.")
    return token


def _new_session(profile: str) -> str:
    return f"run 'oci session refresh --profile {profile}' or 'oci session authenticate --profile-name {profile}'"


def _instance_principal(region: str | None) -> Cloud:
    try:
        signer = oci.auth.signers.InstancePrincipalsSecurityTokenSigner(retry_strategy=oci.retry.NoneRetryStrategy())
    except Exception as error:  # the SDK raises what its HTTP library does, by the way in which it fails
        raise OciError(
            f"No instance principal here ({_reason(error)}): this works on an instance of Oracle Cloud that a "
            f"dynamic group holds ({SETUP}); elsewhere set auth to api_key."
        ) from None
    config = {"tenancy": signer.tenancy_id, "region": region or signer.region, "log_requests": False}
    _check_region(config["region"], "the instance")
    remedy = f"check that the dynamic group still holds this instance ({SETUP}, 'Policy')."
    return Cloud({**oci.config.DEFAULT_CONFIG, **config}, signer, "the instance principal", remedy)


def _may_pass(error: OciError) -> bool:
    """Whether another try may be answered better; IncorrectState: what it needs is not AVAILABLE yet."""
    return error.unknown or error.status == 429 or error.code == "IncorrectState"


def _waits() -> Iterator[float]:
    """Seconds between tries: doubling from 0.25 to 10 with jitter, until their sum is spent."""
    spent, wait = 0.0, 0.25
    while spent < _RETRIES_END_S:
        spent += wait
        yield wait * random.uniform(0.8, 1.2)
        wait = min(2 * wait, 10.0)


def _retry_after(error: Any) -> float:
    """What the answer itself asks to wait, in seconds; 0 where it does not."""
    try:
        return min(float((error.headers or {}).get("retry-after", 0)), _RETRIES_END_S)
    except ValueError:  # a date: rare, and the doubling waits do as well
        return 0.0


def _clock_skew(headers: Mapping[str, str]) -> float:
    """Seconds by which Oracle's clock is ahead of this machine's, 0 when the answer has no date."""
    try:
        return email.utils.parsedate_to_datetime(headers["date"]).timestamp() - time.time()
    except (KeyError, TypeError, ValueError):
        return 0.0


def _reason(error: BaseException) -> str:
    """The innermost cause, in one line."""
    while error.__cause__ or (error.args and isinstance(error.args[0], BaseException)):
        error = error.__cause__ or error.args[0]
    return " ".join(str(error.args[0] if error.args else error).split())[:200] or type(error).__name__
