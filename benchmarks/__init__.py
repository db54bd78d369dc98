"""Measured on one thread: what a node has. Set here, for it must be before NumPy is loaded."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
