"""What the scenarios' tests share: where things lie on the host."""

import json
import os
from typing import Any

import pytest
from testinfra.host import Host


@pytest.fixture
def site() -> str:
    return os.environ["MOLECULE_EPHEMERAL_DIRECTORY"] + "/a site"


@pytest.fixture
def engine(host: Host, site: str) -> dict[str, Any]:
    """The engine's description, as faceswap_install left it."""
    description: dict[str, Any] = json.loads(host.file(f"{site}/engine/engine.json").content_string)
    return description
