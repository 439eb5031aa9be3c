"""Start the engine as Faceswap is started: `python faceswap.py {extract,train,convert} ...`."""

from minifaceswap.cli import main

raise SystemExit(main())
