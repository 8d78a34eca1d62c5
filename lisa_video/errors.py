"""Errors that a user can mend."""


class UserError(ValueError):
    """A mistake in what the user gave: a file, a config value, a flag.

    The message is one line: what is wrong, in which file, frame or key, and how to mend it. Jobs
    print it as `error: ...` and exit with code 2; broken invariants of the program use `assert`.
    """
