"""The command line, a module per kind of work. ``introspection.__main__`` puts them together."""
