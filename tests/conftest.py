"""What holds for every test."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from testhosts.machine import what_is_missing

# A shell's background job inherits SIGINT ignored, and so would every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Files whose tests take minutes: they begin first, so that no worker is left with a long one at the end.
LONG = [
    "test_hosts_faults.py",
    "test_hosts_bad_input.py",
    "test_site.py",
    "test_oci_faults.py",
    "test_oci_instance.py",
    "test_engine.py",
    "test_ranges.py",
    "test_identity.py",
    "test_training.py",
    "test_supervisor.py",
    "test_swap_judge.py",
    "test_oci_plan.py",
    "test_convert.py",
]

# What is left out on the second Python, and why; of these files the named tests stay.
ONCE: dict[str, tuple[str, set[str]]] = {
    "test_engine.py": (
        "the engine's ways are the same on every Python; one job is made from extract to convert",
        {"test_every_frame_comes_out_in_its_size"},
    ),
    "test_convert.py": ("it is the engine's Python that runs the script", set()),
    "test_faces.py": ("it is the engine's Python that runs the script", set()),
    "test_identity.py": ("it is the engine's Python that runs the script", set()),
    "test_ranges.py": ("it is the engine's Python that runs the script", set()),
    "test_training.py": ("the host's Python runs it, which is the same one", set()),
    "test_faceswap_options.py": (
        "the contract is data; the plan is made once by the other ansible-core",
        {"test_the_plan_has_nothing_against_a_good_job[upstream]"},
    ),
    "test_hosts_faults.py": ("what is cut off is the host, whose Python is its own", set()),
    "test_hosts_bad_input.py": ("what is wrong is the host, whose Python is its own", set()),
    "test_testhosts.py": ("the hosts are there for these tests alone", set()),
    "test_swap_judge.py": ("the judge is a measure of pictures for these tests alone", set()),
    "test_oci_faults.py": ("faults try the logic, which is the same on every Python", set()),
    "test_oci_plan.py": (
        "plan and failover are logic, which is the same on every Python",
        {"test_the_plan_says_what_where_and_how_much"},
    ),
    "test_oci_instance.py": (
        "making and removing is logic, which is the same on every Python; one whole life is tried",
        {"test_from_nothing_to_a_reachable_instance_and_back_to_zero"},
    ),
    "test_oci_inventory.py": (
        "what is listed is logic; the plugin is tried once through ansible-inventory",
        {"test_ours_are_listed_with_all_that_reaches_them_and_nothing_else"},
    ),
    "test_site.py": (
        "the roles' logic is the same on every ansible-core; all of them are played twice and in check mode",
        {"test_a_second_run_changes_nothing"},
    ),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long ones first, and mark what one Python is enough for."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
    for item in items:
        why, kept = ONCE.get(item.path.name, ("", set()))
        if why and item.name not in kept and item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.once(why))


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the many short trainings share what JAX compiles; results are the same, compiling takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("jax")))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        yield


@pytest.fixture(scope="session")
def need_hosts() -> None:
    """Skip, with the reason, where test hosts cannot be had; under REQUIRE_HOSTS=1 that is a failure."""
    if lacking := what_is_missing():
        if os.environ.get("REQUIRE_HOSTS") == "1":
            pytest.fail(f"REQUIRE_HOSTS=1, but {lacking}", pytrace=False)
        pytest.skip(lacking)
