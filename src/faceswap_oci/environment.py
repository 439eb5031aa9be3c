"""Which part of the user's environment reaches the play.

ansible-runner writes the whole environment of a play to a file and keeps it. So a play gets only what
the list below allows: what finds programs, files and certificates, and nothing that is itself a secret.
Passwords belong in files that such a variable may name (pip.conf, ~/.netrc, a vault password file).
"""

import os
import re
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# ANSIBLE_ as a whole is not allowed: ANSIBLE_BECOME_PASS and its like hold secrets. pip's variables and the
# proxies' hold one only where a URL has a login, which the second expression finds. OCI_CLI_ names a file and how
# to sign in with it; OCI_CLI_KEY_CONTENT and OCI_CLI_PASSPHRASE are secrets themselves.
_ALLOWED = re.compile(
    r"""PATH | HOME | USER | LOGNAME | SHELL | LANG | LANGUAGE | TZ | TERM | TMPDIR
    | LD_LIBRARY_PATH | SSH_AUTH_SOCK
    | (?i: (http|https|all|no)_proxy )
    | SSL_CERT_FILE | SSL_CERT_DIR | REQUESTS_CA_BUNDLE | CURL_CA_BUNDLE
    | ANSIBLE_(HOME | LOCAL_TEMP | REMOTE_TEMP | REMOTE_USER | PRIVATE_KEY_FILE | TIMEOUT | FORKS | VERBOSITY)
    | ANSIBLE_(VAULT | BECOME | CONNECTION)_PASSWORD_FILE | ANSIBLE_VAULT_IDENTITY_LIST
    | ANSIBLE_SSH_(COMMON_ | EXTRA_)?ARGS
    | OCI_CLI_(CONFIG_FILE | PROFILE | AUTH)
    | (LC | XDG | PIP | FACESWAP)_.*""",
    re.VERBOSE,
)
_URL_WITH_LOGIN = re.compile(r"://[^/\s@]+@")


def allowed(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The variables a play may see, and the names of those left out because they hold a URL with a login.

    The scripts folder of this Python stands first in PATH, so that `ansible-playbook` is the one installed
    beside this package even where its virtual environment is not activated.
    """
    known = {name: text for name, text in environ.items() if _ALLOWED.fullmatch(name)}
    refused = sorted(name for name, text in known.items() if _URL_WITH_LOGIN.search(text))
    kept = {name: text for name, text in known.items() if name not in refused}
    kept["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), kept.get("PATH", os.defpath)])
    return kept, refused


@contextmanager
def only(variables: Mapping[str, str]) -> Iterator[None]:
    """Replace this process's environment for the time of the block: ansible-runner copies `os.environ`."""
    saved = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)
