#!/usr/bin/python
# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Documentation of the action plugin of the same name, which does the work."""

from __future__ import annotations

DOCUMENTATION = r"""
module: provenance
short_description: Sign a released video on the controller, and let it out of quarantine
version_added: 0.1.0
description:
  - Asks the host what it released, which the host verifies once more, with the consents. Holds the answer against
    O(record_a) and O(record_b), which are verified here, and O(source), and only then brings the result into
    O(quarantine). The fetched files must have the hashes that the host tells, and be those that a release writes.
  - Copies what was fetched to where nobody else can write, and looks at, signs and reads back that copy alone. So the
    file system of O(dest) holds the video twice meanwhile, beside the one in O(quarantine).
  - Looks for the label itself, on every frame, or on some by chance in a video of more than 1000; whoever answers in
    the host's place cannot have a video signed without it.
  - Signs the video with a C2PA manifest, which says that it is a composite made with a trained network, of which
    source, by which engine and model and under which consents. It holds ids and hashes, and names no person, file or
    machine. Reads the signed file back and validates it.
  - Beside the video lies C(NAME.mp4.provenance.json), with the SHA-256 of the signed file and the hash of the
    release's line in the audit log. The video appears last. What is not signed and found valid stays in quarantine,
    and the task fails with C(consent_code) 32.
  - Without a key and a certificate the tool signs with a test certificate that it makes for this machine. It calls
    itself so everywhere, and proves nothing about who made the video.
  - A source that carries content credentials of its own keeps them, inside the manifest, whatever they say.
  - No network is used, so the signature has no time stamp of an authority.
author:
  - The faceswap-oci maintainers
options:
  supervisor:
    description: The supervisor program on the host, as for M(faceswap.ops.stage).
    type: str
    required: true
  job_dir:
    description: Folder of the job on the host.
    type: str
    required: true
  quarantine:
    description: Folder on the controller to which the job's result is brought. It is removed when all has left it.
    type: str
    required: true
  dest:
    description: Folder on the controller for the signed video, its report, its log and its side-car.
    type: str
    required: true
  source:
    description: Source A on the controller, which becomes the manifest's ingredient.
    type: str
    required: true
  record_a:
    description: Record of consent of identity A on the controller, with which the job was made.
    type: str
    default: ""
  record_b:
    description: Record of consent of identity B.
    type: str
    default: ""
  patience_s:
    description: For how many seconds a lost connection is tried again.
    type: int
    default: 120
  signing_key:
    description:
      - Private key in PEM without a passphrase, on the curves P-256, P-384 or P-521, Ed25519, or RSA of at least 2048
        bits. Empty, with O(signing_certificate), stands for the test certificate.
    type: str
    default: ""
  signing_certificate:
    description:
      - The key's certificate in PEM, followed by those above it. C2PA asks for the extended key usage
        emailProtection.
    type: str
    default: ""
requirements:
  - c2pa-python and cryptography on the controller, which sign
  - av, numpy and pillow on the controller, which look for the label
attributes:
  check_mode:
    description: Says whether something would be signed, and signs nothing.
    support: full
  diff_mode:
    description: There is no difference to show.
    support: none
  idempotent:
    description:
      - A result that is at home and signed with the same certificate is not signed again. It is at home where the
        audit log of this controller is whole and says that it released this file.
    support: full
"""

EXAMPLES = r"""
- name: Fetch what was released, sign it, and put it at home
  faceswap.ops.provenance:
    supervisor: /srv/faceswap-oci/bin/supervisor.py
    job_dir: /srv/faceswap-oci/jobs/film
    quarantine: /home/jo/out/.quarantine/film
    dest: /home/jo/out/film
    source: /home/jo/media/a.mp4
    record_a: /home/jo/media/anna.consent.yml
    record_b: /home/jo/media/berta.consent.yml
    signing_key: /home/jo/.keys/c2pa.key
    signing_certificate: /home/jo/.keys/c2pa-chain.pem
"""

RETURN = r"""
at_home:
  description: Whether the signed result is there; in check mode, whether it was before.
  returned: success
  type: bool
certificate:
  description: C(own), or C(test) for the test certificate, which proves nothing about who made the video.
  returned: success, in check mode only where the result is at home
  type: str
signed_by:
  description: Whom the certificate names.
  returned: success, in check mode only where the result is at home
  type: str
video:
  description: The signed video.
  returned: success, but in check mode
  type: str
sidecar:
  description: The side-car beside it.
  returned: success, but in check mode
  type: str
sha256:
  description: SHA-256 of the signed video.
  returned: success, but in check mode
  type: str
seconds:
  description: Seconds that signing, reading back and validating took; none where it was at home already.
  returned: success, but in check mode
  type: float
consents:
  description: The ids of the consents by side.
  returned: success, but in check mode
  type: dict
consent_code:
  description:
    - 32 for a result that could not be signed or lacks its label, 27 for another source or record, 20 to 29 for a
      record that does not hold here, or the code of the host's refusal.
  returned: when refused
  type: int
"""
