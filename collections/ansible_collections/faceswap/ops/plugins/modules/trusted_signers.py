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
    trusts nobody, the host is left as it is.
author:
  - The faceswap-oci maintainers
options: {}
attributes:
  check_mode:
    description: Says whether the host would trust others than before.
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
  become: true
"""

RETURN = r"""
path:
  description: The list on the host.
  returned: when the controller has one
  type: str
  sample: /etc/faceswap-oci/allowed_signers
"""
