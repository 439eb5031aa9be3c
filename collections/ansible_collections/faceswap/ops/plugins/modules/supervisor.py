#!/usr/bin/python
# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Documentation of the action plugin of the same name, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: supervisor
short_description: Stop Faceswap jobs on a host, or delete what was made on revoked consent
version_added: 0.1.0
description:
  - Asks the supervisor that the role faceswap_run has brought to the host. Before it is asked, all programs beside it
    are compared with the role's own.
  - What fails in one place keeps nothing from being done in the others.
author:
  - The faceswap-oci maintainers
options:
  supervisor:
    description: The supervisor program on the host, C(supervisor.py), or with root's rights C(units.py).
    type: str
    required: true
  verb:
    description:
      - V(stop) saves and ends whatever runs in jobs. V(purge) does so in those jobs of folders that had one of these
        consents, and deletes what was made there.
    type: str
    choices: [stop, purge]
    required: true
  places:
    description: Jobs to stop, or folders of jobs to purge.
    type: list
    elements: str
    required: true
  ids:
    description: The consents that were revoked, for V(purge).
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: What would be done is known only to who does it.
    support: none
  diff_mode:
    description: There is none.
    support: none
  idempotent:
    description: Where nothing runs and nothing is left, nothing is done.
    support: full
"""

EXAMPLES = r"""
- name: Stop a job
  faceswap.ops.supervisor:
    supervisor: /srv/faceswap-oci/bin/units.py
    verb: stop
    places: [/srv/faceswap-oci/jobs/anna]
  become: true
"""

RETURN = r"""
answers:
  description: By place what the supervisor answered, C(stopped) stages, and what it C(removed) of which job.
  returned: success
  type: dict
  sample: {/srv/faceswap-oci/jobs/anna: {changed: true, stopped: [train]}}
consent_code:
  description: The code of a refusal.
  returned: when the supervisor, or the comparison of the programs, refuses
  type: int
  sample: 30
"""
