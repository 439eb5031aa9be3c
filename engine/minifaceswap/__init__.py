"""A small face-swap engine with Faceswap's command line, for demonstrations on a CPU."""
