"""Speed and memory, measured on the real default model; see README.md."""

import os

os.environ.setdefault("MKL_CBWR", "AUTO")  # as in introspection/__main__.py
