"""The one exception whose text is shown to the user."""


class UserError(Exception):
    """Something the user can put right; the message is one sentence with the cause and the remedy."""
