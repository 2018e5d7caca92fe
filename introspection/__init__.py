"""Research code on whether a language model can report thoughts placed in its activations."""

import os

# Intel's library plans small products anew at each call, and on two cores writes three answers at half
# the speed of the static plan that this asks for. It is read at the first product.
os.environ.setdefault("MKL_CBWR", "AUTO")
