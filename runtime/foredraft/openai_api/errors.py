"""Errors in OpenAI's form: ``{"error": {"message", "type", "param", "code"}}`` with an HTTP status."""

from typing import Any

from aiohttp import web

from foredraft.errors import (
    ConfigError,
    DeadlineError,
    ForedraftError,
    MissingExtraError,
    ModelError,
    RefusedError,
    UnreachableError,
)
from foredraft.protocol.messages import BUSY, INTERNAL, MISMATCH, TOO_LONG, UNAUTHORIZED, VERSION

RETRY_AFTER_S = 1


class ApiError(Exception):
    """What is wrong with a request, or why it cannot be served now. ``param``: which parameter is to blame."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float = RETRY_AFTER_S,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """As JSON."""
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> web.Response:
        """As an HTTP response."""
        headers = {"Retry-After": str(max(1, round(self.retry_after_s)))} if self.status in (429, 503) else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return web.json_response(self.body(), status=self.status, headers=headers)


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that makes no sense."""
    return ApiError(400, message, param=param, code=code)


def api_error_of(error: ForedraftError) -> ApiError:
    """What a client hears of an error of ours."""
    if isinstance(error, RefusedError):
        if error.code == TOO_LONG:
            return invalid(error.reason, "messages", "context_length_exceeded")
        if error.code in (UNAUTHORIZED, VERSION, MISMATCH, INTERNAL):
            return ApiError(502, f"the cloud refuses: {error.reason}")
        if error.code == BUSY or error.retry_after_s is not None:
            return ApiError(
                503, f"the cloud is busy: {error.reason}", retry_after_s=error.retry_after_s or RETRY_AFTER_S
            )
        return invalid(error.reason)
    if isinstance(error, UnreachableError):
        return ApiError(503, f"the cloud is out of reach: {error}")
    if isinstance(error, DeadlineError):
        return ApiError(504, str(error))
    if isinstance(error, MissingExtraError):
        return ApiError(501, str(error))
    if isinstance(error, ConfigError):
        return invalid(str(error))
    if isinstance(error, ModelError):
        return ApiError(502, f"the two ends do not fit: {error}")
    return ApiError(500, str(error))
