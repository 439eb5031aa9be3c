# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Documentation of the action plugin `pinned_source`, which does it all on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pinned_source
short_description: Get just one commit of a program's source, on the controller
version_added: 0.3.0
description:
  - Puts the files of one commit into a folder on the controller, from which they can be sent to hosts. So neither a
    host nor a later run needs git or a way to the source.
  - The folder is there whole or not at all. It is a cache, so it is made in check mode too.
author:
  - The faceswap-oci maintainers
options:
  source:
    description:
      - A URL that git takes, the folder of a git checkout, whatever is checked out there, or an archive (.tar,
        .tar.gz or .zip) that C(git archive) made of the commit and that says so.
    type: str
    required: true
  commit:
    description: The commit, 40 hexadecimal digits.
    type: str
    required: true
  holds:
    description: A file that the source must have. Where it is in the archive's only folder, that folder is taken.
    type: str
    required: true
  patches:
    description: Changes to the files, by C(file), C(pattern) (a regular expression for lines) and C(by).
    type: list
    elements: dict
    default: []
    suboptions:
      file:
        description: The file, as the source names it.
        type: str
        required: true
      pattern:
        description: What is replaced. It is an error where it does not occur.
        type: str
        required: true
      by:
        description: What takes its place.
        type: str
        required: true
  cache:
    description: Folder on the controller that keeps the sources.
    type: str
    default: ~/.cache/faceswap-oci/sources
attributes:
  check_mode:
    description: It does the same.
    support: full
  diff_mode:
    description: Shows nothing, as no host is changed.
    support: none
  idempotent:
    description: A commit that is there is not asked for again.
    support: full
"""

EXAMPLES = r"""
- name: Get the source
  faceswap.ops.pinned_source:
    source: https://github.com/deepfakes/faceswap.git
    commit: acdcfa8796c26d47e3610efeae102c9d87b2ad89
    holds: faceswap.py
  register: source
"""

RETURN = r"""
path:
  description: The folder with the files, and with the commit in a file C(.commit).
  returned: success
  type: str
"""
