#!/usr/bin/python
# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Documentation of the action plugin of the same name, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: consent
short_description: Check who agreed to a face swap, and bring the records to a job
version_added: 0.1.0
description:
  - Checks on the controller the signed records of consent of both sides - signature, days, revocation, use, the
    picture of the person beside the record - and that they are two persons'. With O(source_a) and O(source_b) also
    that these files are the ones that were agreed to, by their content.
  - With O(dest), brings records, signatures and pictures to a folder on the host, as C(a.yml), C(a.yml.sig),
    C(a.reference.png) and so on. The host checks them again, by its own list of trusted signers, before each stage.
  - A refusal fails the task with RV(consent_code), and is a line of the controller's audit log.
author:
  - The faceswap-oci maintainers
options:
  record_a:
    description: Record of consent of identity A, whose head stays.
    type: str
    default: ""
  record_b:
    description: Record of consent of identity B, whose face comes.
    type: str
    default: ""
  source_a:
    description: Video or folder of images of identity A on the controller.
    type: str
  source_b:
    description: Video or folder of images of identity B on the controller.
    type: str
  dest:
    description: Folder on the host for the records, which will hold nothing else. Without it no host is touched.
    type: str
  brought:
    description:
      - What RV(brought) of a task before this one was. Where the same records came to the same folder by it, the host
        is not asked again.
    type: str
    default: ""
  patience_s:
    description: For how many seconds a lost connection is tried again.
    type: int
    default: 120
attributes:
  check_mode:
    description: Checks the records, and says whether they would be brought.
    support: full
  diff_mode:
    description: Shows what would be brought.
    support: full
  idempotent:
    description: What is on the host is not brought again.
    support: full
"""

EXAMPLES = r"""
- name: Check who agreed
  faceswap.ops.consent:
    record_a: /videos/anna.consent.yml
    record_b: /videos/berta.consent.yml
    source_a: /videos/anna.mp4
    source_b: /videos/berta.mp4
"""

RETURN = r"""
consents:
  description: By side C(id), C(identity), C(digest) of the record, C(signer), C(valid_until), and C(source).
  returned: when both hold
  type: dict
brought:
  description: Which records are in which folder of the host now, for O(brought) of the next task.
  returned: when both hold
  type: str
consent_code:
  description: Why it was refused, from 20 to 30; see M(faceswap.ops.stage).
  returned: when it was refused
  type: int
"""
