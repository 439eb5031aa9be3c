"""The one error that an operation raises, and the ones that many operations share."""


class ApiError(Exception):
    """An answer which is no success: HTTP status, Oracle's error code and its sentence."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


def parse_error(message: str) -> ApiError:
    """Body or query that does not have the form of the operation."""
    return ApiError(400, "CannotParseRequest", f"Incorrectly formatted request. {message}")


def invalid(message: str) -> ApiError:
    """A value that the operation does not take."""
    return ApiError(400, "InvalidParameter", message)


def missing(name: str) -> ApiError:
    """A value that the operation needs."""
    return ApiError(400, "MissingParameter", f"Missing required parameter: {name}")


def not_found() -> ApiError:
    """What is not there and what may not be seen are answered alike, as the cloud does."""
    return ApiError(404, "NotAuthorizedOrNotFound", "Authorization failed or requested resource not found.")


def incorrect_state(message: str) -> ApiError:
    """The resource is on its way from one state to another."""
    return ApiError(409, "IncorrectState", message)


def conflict(what: str, identity: str, by: str, other: str) -> ApiError:
    """Something else still needs the resource."""
    return ApiError(
        409,
        "Conflict",
        f"The {what} {identity} references the {by} {other}. "
        "You must remove the reference to proceed with this operation.",
    )


def limit_exceeded(*names: str) -> ApiError:
    """More than Oracle lets the tenancy have. (The space at the end is Oracle's.)"""
    return ApiError(
        400,
        "LimitExceeded",
        f"The following service limits were exceeded: {', '.join(names)}. Request a service limit increase from the "
        "service limits page in the console. ",
    )


def no_capacity(message: str) -> ApiError:
    """No host is free: not the client's fault, and nothing that a repetition would help soon."""
    return ApiError(500, "InternalError", message)


def not_authenticated(message: str = "") -> ApiError:
    """Every refusal of a signature reads the same, except for a wrong clock."""
    text = "The required information to complete authentication was not provided or was incorrect."
    return ApiError(401, "NotAuthenticated", message or text)
