"""What holds for every test."""

import signal

# A shell's background job inherits SIGINT ignored, and so would every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)
