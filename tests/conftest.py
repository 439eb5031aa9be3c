"""What holds for every test."""

import os
import signal

import pytest
from testhosts.machine import what_is_missing

# A shell's background job inherits SIGINT ignored, and so would every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def need_hosts() -> None:
    """Skip, with the reason, where test hosts cannot be had; under REQUIRE_HOSTS=1 that is a failure."""
    if lacking := what_is_missing():
        if os.environ.get("REQUIRE_HOSTS") == "1":
            pytest.fail(f"REQUIRE_HOSTS=1, but {lacking}", pytrace=False)
        pytest.skip(lacking)
