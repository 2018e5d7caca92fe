"""Speed and memory, measured on the real default model; see README.md."""
