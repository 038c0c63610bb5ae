"""`UserError`: something that the person at the keyboard can mend; its text says how."""


class UserError(Exception):
    """Shown as one line without a traceback."""
