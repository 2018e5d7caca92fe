"""Research code on whether a language model can report thoughts placed in its activations."""

import os

from introspection.io.version import __version__ as __version__

# A fixed plan for how Intel's library shares out products between threads. Without it the small ones of
# a decoding step gain little from a second core: on an AMD EPYC with two, three answers of 24 tokens
# took 5.4 s instead of 3.6. It is read at the first product.
os.environ.setdefault("MKL_CBWR", "AUTO")
