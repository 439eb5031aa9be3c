"""What the scenarios' tests share: the engine on the host, and the host's journal when a test failed."""

import json
from collections.abc import Generator
from typing import Any

import pytest
from testinfra.host import Host


@pytest.fixture
def engine(host: Host) -> dict[str, Any]:
    """The engine's description, as faceswap_install left it."""
    description: dict[str, Any] = json.loads(host.file("/opt/faceswap-oci/engine/engine.json").content_string)
    return description


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the host's journal says when a test failed there."""
    report = yield
    host = getattr(item, "funcargs", {}).get("host")
    if report.failed and host is not None:
        said = host.run("sudo -n journalctl --boot --no-pager --lines 60")
        report.sections.append(("journal of the host", said.stdout or said.stderr))
    return report
