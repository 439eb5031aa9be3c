"""An emulator of the parts of Oracle's cloud API that launch one instance and its network."""
