#!/usr/bin/python
# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Documentation of the action plugin of the same name, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: transfer
short_description: Bring a file or a folder to a host, or from it, and go on where a cut transfer stopped
version_added: 0.1.0
description:
  - Makes O(dest) what O(src) is, in pieces over the task's own connection, whichever that is. A file is proven by its
    SHA-256, gets its name only then, and at once; until then it is a C(.NAME.HASH.part) beside its place.
  - A transfer that was cut goes on where it stopped, in the same run while O(patience_s) lasts, and in the next one
    that has the same O(src) and O(dest).
  - What O(src) does not have is left alone in the folder O(dest), or removed from it (O(mirror)).
  - Links in O(src) are followed where they lead to files inside O(src); others are refused. Owners, times and modes
    of O(src) are not kept. What is written belongs to the user who writes (C(become_user)).
  - Nothing is installed on the host and no temporary file is made, so that any C(become_user) serves. It needs
    Python 3.9 or newer there.
  - On a terminal one line shows where it stands; without one there is a line every 30 s. With
    E(FACESWAP_OPS_PROGRESS=json) in the environment each update is one line of JSON.
author:
  - The faceswap-oci maintainers
options:
  src:
    description:
      - File or folder to send, on the controller or, with O(to=controller), on the host. A slash at the end means
        nothing. On the controller a relative path starts at the playbook's folder; on the host there is none.
    type: str
    required: true
  dest:
    description:
      - Where it is to be, on the other side, under this very name. Folders above it are made.
    type: str
    required: true
  to:
    description: Where O(dest) is.
    type: str
    choices: [host, controller]
    default: host
  mode:
    description:
      - Mode of the files, in octal and in quotes. Folders that are made are as open as their files. Without it
        V('0644') on the host, and what the umask leaves on the controller, where a file's mode is then not looked at.
    type: raw
  exclude:
    description:
      - Names of files and folders, at any depth of a folder, that are not sent. At O(dest) they are left alone,
        unless the folder that they are in goes.
    type: list
    elements: str
    default: []
  mirror:
    description:
      - Whether what O(src) does not have is removed from the folder O(dest), before anything is sent. Only for a
        folder that nobody else writes to, and has at least one of the files of O(src) already, unless it is empty.
    type: bool
    default: false
  clear:
    description:
      - Whether O(mirror) is also for a folder that has none of the files of O(src), as that of images does where
        others take their place.
    type: bool
    default: false
  patience_s:
    description: Seconds for which a lost connection is tried again before the host counts as unreachable.
    type: int
    default: 120
attributes:
  check_mode:
    description: Compares and writes nothing. What is not on the host yet counts as changed.
    support: full
  diff_mode:
    description: Names what is sent and what is removed, at most 20 of them.
    support: full
  idempotent:
    description: What is the same on both sides takes one round trip and is left alone.
    support: full
"""

EXAMPLES = r"""
- name: Bring the first clip to the host
  faceswap.ops.transfer:
    src: ~/clips/anna.mp4
    dest: /srv/faceswap-oci/jobs/anna-as-berta/a.mp4

- name: Bring the model home
  faceswap.ops.transfer:
    src: /srv/faceswap-oci/jobs/anna-as-berta/model
    dest: out/model
    to: controller
    exclude: [logs]
"""

RETURN = r"""
checksum:
  description: SHA-256 of the file; of a folder that over the hashes and names of all that is in it.
  returned: always, but where check mode has nothing to look at
  type: str
files:
  description: Number of files that O(src) holds.
  returned: always, but where check mode has nothing to look at
  type: int
bytes_sent:
  description: Bytes of files that went over the connection; what a cut transfer had left is not sent again.
  returned: always, but where check mode has nothing to look at
  type: int
"""
