import shlex

import pytest
from ansible_collections.faceswap.ops.plugins.module_utils import stack_tags

OLD = "AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
NEW = "AAAAC3NzaC1lZDI1NTE5AAAAI" + "B" * 43
TAGS = {stack_tags.STACK: "studio", stack_tags.RUN: "0123456789ab"}


@pytest.mark.parametrize(("phase", "keys"), [("first", [OLD]), ("rotating", [OLD, NEW]), ("rotated", [NEW])])
def test_a_host_key_tag_is_read_as_it_was_written(phase: str, keys: list[str]) -> None:
    tag = stack_tags.host_key_tag(phase, keys)
    assert stack_tags.parse_host_key(tag) == (phase, keys)
    assert len(tag) <= 256  # the longest value that a freeform tag can have


@pytest.mark.parametrize(
    "tag",
    [
        "",
        "first:",
        f"rotated:{OLD},{NEW}",
        f"rotating:{NEW}",
        f"new:{OLD}",
        f"first:{OLD}\nhost ssh-ed25519",
        "first:AAAA",
    ],
)
def test_a_tag_that_is_no_host_key_pins_nothing(tag: str) -> None:
    with pytest.raises(ValueError, match="not a host key tag"):
        stack_tags.known_hosts_lines({**TAGS, stack_tags.HOST_KEY: tag})


def test_while_keys_are_exchanged_both_are_pinned() -> None:
    lines = stack_tags.known_hosts_lines({**TAGS, stack_tags.HOST_KEY: f"rotating:{OLD},{NEW}"})
    assert lines == [f"studio.0123456789ab ssh-ed25519 {OLD}", f"studio.0123456789ab ssh-ed25519 {NEW}"]


def test_a_path_with_a_space_stays_one_file_for_ssh() -> None:
    words = shlex.split(stack_tags.ssh_args("studio.1", "/a folder/known_hosts"))
    assert 'UserKnownHostsFile="/a folder/known_hosts"' in words
    assert "StrictHostKeyChecking=yes" in words


@pytest.mark.parametrize("name", ["", "../etc", "a/b", "-x", "a b", "x" * 64])
def test_a_name_that_could_leave_its_folder_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a stack"):
        stack_tags.check_name(name)
