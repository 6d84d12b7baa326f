"""The one exception that speaks to a user instead of a developer."""


class InputError(ValueError):
    """Something the user gave cannot be used: the message names the file, the row and the remedy.

    Command lines print the message alone and exit with status 2; from Python it is an ordinary `ValueError`.
    """
