"""The exceptions that speak to a user instead of a developer."""


class InputError(ValueError):
    """Something the user gave cannot be used: the message names the file, the row and the remedy.

    Command lines print the message alone and exit with status 2; from Python it is an ordinary `ValueError`.
    """


class RunFailed(RuntimeError):
    """Something a run met on its way: a loss that is no number, a disk that is full, another process that is gone.

    The message says what, and from where a new start goes on. Command lines print it alone and exit with status 1.
    """


class Preempted(RuntimeError):
    """The run was asked to stop (SIGTERM), and everything is saved: the same command goes on from there.

    Command lines exit with status `REQUEUE`, by which a cluster knows that the job is to be queued again.
    """

    REQUEUE = 75  # EX_TEMPFAIL of sysexits.h
