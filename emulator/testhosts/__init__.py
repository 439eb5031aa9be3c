"""Real hosts for tests: systemd, cloud-init, sshd and packages of Debian, in namespaces that vanish with the test."""
