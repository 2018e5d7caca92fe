"""The one exception that users read.

Its message is one sentence: what is wrong and what to do next. The command line prints it and exits
with 2, the page shows it as a message; everything else that is raised is a bug.
"""


class IntrospectionError(Exception):
    """Something the user can mend. The message is one clear sentence, ready to be shown."""
