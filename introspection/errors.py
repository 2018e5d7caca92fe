"""The one exception that is meant to be read by a user.

Knows: nothing but its message, which is one sentence that says what is wrong and what to do next.
Does not know: where it is shown. The command line prints it and exits with 2, the demo shows it
as a titled message; everything else that is raised is a bug.
"""


class IntrospectionError(Exception):
    """Something the user can mend. The message is one clear sentence, ready to be shown."""
