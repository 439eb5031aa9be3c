"""The real Faceswap for tests marked `upstream`, installed by the role as a user would, on a stack for the CPU.

FACESWAP_SOURCE names a checkout or archive of it. The installation takes some minutes and is done once a session;
FACESWAP_ENGINE names the engine.json of one that was made before.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = "FACESWAP_SOURCE"
ENGINE = "FACESWAP_ENGINE"
# The mark alone would let a test pass for one that was never run.
needs_source = pytest.mark.skipif(SOURCE not in os.environ, reason=f"{SOURCE} names no checkout of Faceswap")


def install(folder: Path, *words: str, **values: object) -> subprocess.CompletedProcess[str]:
    """Play faceswap_install for this machine into `folder`; `words` go to ansible-playbook, `values` to the role."""
    given = {
        "faceswap_install_engine": "upstream",
        "faceswap_install_dir": str(folder),
        "faceswap_install_system": False,
        "faceswap_install_python": sys.executable,
        "faceswap_install_source": os.environ.get(SOURCE, "none"),
        "faceswap_install_target": "test",
        "faceswap_install_weights": [],
        **values,
    }
    inventory = folder.parent / f"{folder.name}.yml"
    inventory.parent.mkdir(parents=True, exist_ok=True)
    inventory.write_text(
        json.dumps(
            {
                "faceswap": {
                    "hosts": {"here": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}
                }
            }
        )
    )
    return subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"),
            str(ROOT / "playbooks" / "faceswap_install.yml"),
            "-i",
            str(inventory),
            "-e",
            json.dumps(given),
            *words,
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1200,
    )


@pytest.fixture(scope="session")
def upstream_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine.json of a Faceswap that works."""
    if made := os.environ.get(ENGINE):
        return Path(made)
    folder = tmp_path_factory.mktemp("upstream") / "engine"
    done = install(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "engine.json"
