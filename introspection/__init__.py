"""Research code on whether a language model can report thoughts placed in its activations."""

import os

# Makes Intel's library share out products between threads by a fixed plan. Left to itself it does the
# small ones of a decoding step on one thread: on two cores of an AMD EPYC the products of three answers
# took 144 ms a token, and 77 with this. It is read at the first product.
os.environ.setdefault("MKL_CBWR", "AUTO")
