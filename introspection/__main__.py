"""The command line, ``python -m introspection``: ask, extract, train, evaluate, report, benchmark,
regrade, demo, check, push, pull.

Knows: which commands there are. Does not know: what they take (``commands``) or how anything is
computed. Everything heavy is imported inside a command, so that ``--help`` answers at once.

Exit codes: 0 done; 2 something the user can mend, said in one sentence on standard error; 130
interrupted. Anything else is a bug and shows its traceback.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

# Importing a module of commands adds them to the app, in this order.
from introspection.cli import ask, demo, evaluate, hub, regrade, train  # noqa: F401
from introspection.cli.common import app
from introspection.io.files import ensure_tempdir

__all__ = ["app", "main"]

# A fixed plan for how Intel MKL divides products between threads, read at the first product. Without
# it the small products of a decoding step gain little from a second core: on an AMD EPYC with two,
# three answers of 24 tokens took 5.4 s instead of 3.6. Set by programs, not by the library.
os.environ.setdefault("MKL_CBWR", "AUTO")


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A report may hold letters that an old terminal cannot show.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    ensure_tempdir()
    app()


if __name__ == "__main__":
    main()
