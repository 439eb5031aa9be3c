#!/usr/bin/python
# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Documentation of the action plugin of the same name, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: See whether a host can be worked on
version_added: 0.2.0
description:
  - Asks a host in one round trip for all that must hold before anything is done there, and needs no Python for it.
  - What is wrong is told in one sentence with its remedy. Beside what the options ask for, these are a host that
    cannot be reached, that shows another host key than the pinned one, that does not let the login in, or that has no
    Python for Ansible.
  - To be run as the login, C(become=false).
author:
  - The faceswap-oci maintainers
options:
  systems:
    description:
      - The operating systems that will do, each C(ID) of C(/etc/os-release) with a list of versions. A version stands
        for those below it too, C(9) for 9.4. Empty is any system.
    type: dict
    default: {}
  root:
    description:
      - Whether the login must be root, or become it by sudo without a password. It is not asked where Ansible was
        given a password for that.
    type: bool
    default: false
  max_clock_skew_s:
    description: By how many seconds the host's clock may differ from this machine's.
    type: int
    default: 300
attributes:
  check_mode:
    description: It looks, in check mode too.
    support: full
  diff_mode:
    description: It changes nothing.
    support: full
  idempotent:
    description: It changes nothing.
    support: full
"""

EXAMPLES = r"""
- name: See whether the host can be worked on
  faceswap.ops.preflight:
    systems: {debian: ["12", "13"], ubuntu: ["24.04"]}
    root: true
  become: false
  register: host
"""

RETURN = r"""
system:
  description: The operating system, C(id), C(version) and C(name); empty texts where it does not tell.
  returned: success
  type: dict
  sample: {id: debian, version: "12", name: Debian GNU/Linux 12 (bookworm)}
architecture:
  description: The machine, as C(uname -m) names it.
  returned: success
  type: str
  sample: x86_64
kernel:
  description: The running kernel's release.
  returned: success
  type: str
  sample: 6.1.0-25-amd64
python:
  description: Version of the Python that Ansible takes there.
  returned: success
  type: str
  sample: 3.11.2
systemd:
  description: Whether systemd is the host's first process.
  returned: success
  type: bool
user:
  description: The login.
  returned: success
  type: str
  sample: ubuntu
cores:
  description: How many processors there are for a process.
  returned: success
  type: int
  sample: 4
memory_free_mb:
  description: Memory that is free for new processes.
  returned: success
  type: int
  sample: 14200
gpu_memory_free_mb:
  description: Free memory of the first NVIDIA GPU; none where there is no C(nvidia-smi) or it does not answer.
  returned: success
  type: int
  sample: 22500
nvidia_gpus:
  description: How many NVIDIA GPUs the driver has that runs there.
  returned: success
  type: int
  sample: 1
clock_offset_s:
  description: By how many seconds the host's clock is ahead of this machine's at least; below 0 it is behind.
  returned: success
  type: int
  sample: 0
"""
