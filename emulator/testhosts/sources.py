"""Where this machine gets its packages from: read at run time, for the hosts get theirs from there too."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def debian_mirrors() -> dict[str, str]:
    """URLs of Debian's archive (`main`) and of its security archive (`security`), as apt is set up here.

    Empty where the machine is no Debian.
    """
    if platform.freedesktop_os_release().get("ID") != "debian":
        return {}
    text = "$(ORIGIN)|$(COMPONENT)|$(CODENAME)|$(REPO_URI)"
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", text, "Created-By: Packages"],
        capture_output=True, text=True, check=False,
    ).stdout  # fmt: skip
    mirrors: dict[str, str] = {}
    for line in told.splitlines():
        origin, component, codename, url = line.split("|")
        # The origin is known only after an update; a flat repository has no component `main`.
        if origin in ("Debian", "") and component == "main":
            mirrors.setdefault("security" if codename.endswith("-security") else "main", url)
    return mirrors


def apt_lines(suite: str) -> list[str]:
    """Lines of a sources.list for a Debian suite."""
    mirrors = debian_mirrors()
    lines = [f"deb {mirrors['main']} {name} main" for name in (suite, f"{suite}-updates")]
    return lines + [f"deb {mirrors['security']} {suite}-security main" for _ in mirrors.get("security", "")[:1]]


def python_index() -> str:
    """URL of the index that pip uses here; empty where that is pip's own default."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        check=False,
    )
    return os.environ.get("PIP_INDEX_URL") or told.stdout.strip()


def package_hosts() -> set[tuple[str, int]]:
    """Name and port of each server that this machine gets packages from."""
    from pip._internal.models.index import PyPI  # the default is written nowhere else

    urls = [*debian_mirrors().values(), python_index() or PyPI.url, f"https://{PyPI.file_storage_domain}"]
    hosts = set()
    for parts in map(urlsplit, urls):
        if parts.hostname:
            hosts.add((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)))
    return hosts
