"""The command line, ``python -m introspection``: ask, extract, train, evaluate, report, benchmark,
regrade, demo, check, push, pull.

Each command has a file of its name in ``introspection.cli``. Everything heavy is imported inside a
command, so that ``--help`` answers at once.

Exit codes: 0 done; 2 something the user can mend, said in one sentence on standard error; 130
interrupted. Anything else is a bug and shows its traceback.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

from introspection.cli.ask import ask
from introspection.cli.benchmark import benchmark
from introspection.cli.common import add_command, app
from introspection.cli.demo import check, demo
from introspection.cli.evaluate import evaluate
from introspection.cli.extract import extract
from introspection.cli.hub import pull, push
from introspection.cli.report import regrade, report
from introspection.cli.train import train
from introspection.io.files import ensure_tempdir

# A fixed plan for how Intel MKL divides products between threads, read at the first product. Without
# it the small products of a decoding step gain little from a second core: on an AMD EPYC with two,
# three answers of 24 tokens took 5.4 s instead of 3.6. Set by programs, not by the library.
os.environ.setdefault("MKL_CBWR", "AUTO")

for _command in (
    *(ask, extract, train, evaluate, report, benchmark),
    *(regrade, demo, check, push, pull),
):
    add_command(_command)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A report may hold letters that an old terminal cannot show.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    ensure_tempdir()
    app()


if __name__ == "__main__":
    main()
