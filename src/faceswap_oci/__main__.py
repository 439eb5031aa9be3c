"""`python -m faceswap_oci` is the same as the command `faceswap-oci`."""

import sys

from faceswap_oci.cli import main

sys.exit(main())
