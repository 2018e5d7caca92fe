"""Research code on whether a language model can report thoughts placed in its activations."""
