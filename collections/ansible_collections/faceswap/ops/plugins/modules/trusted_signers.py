#!/usr/bin/python
# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Documentation of the action plugin of the same name, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: trusted_signers
short_description: Have a host trust the signers of consent whom the controller trusts
version_added: 0.1.0
description:
  - Brings the controller's C(allowed_signers) to the host, as root to C(/etc/faceswap-oci), as any other user to
    C(~/.config/faceswap-oci) of that user. There the programs of a job look for them; no variable names another.
  - So comes the signed list of revoked records, if it is newer than the host's.
  - On the controller they stand in C(/etc/faceswap-oci) if there are any, else in C(~/.config/faceswap-oci). If it
    trusts nobody, or is the host itself, the host's lists of these are left as they are.
  - Beside them the host keeps C(jobs.json), a list of all folders in which jobs were ever made there. When somebody
    revokes a consent, jobs are looked for in all of them. Nothing is ever taken out of it.
author:
  - The faceswap-oci maintainers
options:
  jobs:
    description: The folder in which jobs are to be made, which the host's list gets.
    type: str
    required: true
attributes:
  check_mode:
    description: Says whether the host would trust others than before. The list of folders stays as it is.
    support: full
  diff_mode:
    description: Shows the lists.
    support: full
  idempotent:
    description: A host that has the list is left alone.
    support: full
"""

EXAMPLES = r"""
- name: Have the host trust whom I trust
  faceswap.ops.trusted_signers:
    jobs: /srv/faceswap-oci/jobs
  become: true
"""

RETURN = r"""
path:
  description: The list on the host.
  returned: success
  type: str
  sample: /etc/faceswap-oci/allowed_signers
jobs:
  description: This folder, and those in which jobs were ever made on the host by this user, by root, or by the login.
  returned: in check mode
  type: list
  elements: str
  sample: [/srv/faceswap-oci/jobs]
gone:
  description: Those of them that are not there any more.
  returned: in check mode
  type: list
  elements: str
  sample: []
"""
