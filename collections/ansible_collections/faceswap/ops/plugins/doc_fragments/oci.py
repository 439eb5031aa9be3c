# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""The options by which everything here signs in to Oracle Cloud.

A module takes `faceswap.ops.oci`; its environment variables are in its argument spec, and only the text can name
them. A plugin adds `faceswap.ops.oci.plugin`, where Ansible reads them from.
"""

from __future__ import annotations


class ModuleDocFragment:
    """Options for signing in: `DOCUMENTATION` for all, `PLUGIN` for what only plugins' documentation may have."""

    DOCUMENTATION = r"""
options:
  config_file:
    description:
      - Configuration file of the OCI SDK and command line, with one section a profile.
      - Only the path travels; the private key that it names never leaves the controller.
      - Without it, E(OCI_CLI_CONFIG_FILE) of the environment is taken.
    type: path
    default: ~/.oci/config
  profile:
    description:
      - Section of O(config_file).
      - Without it, E(OCI_CLI_PROFILE) of the environment is taken.
    type: str
    default: DEFAULT
  auth:
    description:
      - V(api_key) signs with the API key that the profile names.
      - V(security_token) signs with the short-lived token of C(oci session authenticate), which the profile names.
      - V(instance_principal) signs as the instance on which this runs. It needs no O(config_file).
      - Without it, E(OCI_CLI_AUTH) of the environment is taken.
    type: str
    choices: [api_key, security_token, instance_principal]
    default: api_key
requirements:
  - python >= 3.11
  - oci >= 2.189
notes:
  - C(docs/oci-setup.md) of faceswap-oci has the policy statements that the user, or the instance, needs.
"""

    PLUGIN = r"""
options:
  config_file:
    env:
      - name: OCI_CLI_CONFIG_FILE
  profile:
    env:
      - name: OCI_CLI_PROFILE
  auth:
    env:
      - name: OCI_CLI_AUTH
"""
