"""The thin wrapper of faceswap-oci: plays the playbooks, gives a result that a program can use."""
