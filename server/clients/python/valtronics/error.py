"""Why something came to nothing."""

from __future__ import annotations

from typing import Any


class ValtronicsError(Exception):
    """Why a request, a subscription or the whole client came to nothing: a code and a sentence.

    `code` is one of the API's error codes, or one of this client's: `closed`, `connection_lost`,
    `overflow`, `protocol_error`, `replaced`, `timeout`.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        response: dict[str, Any] | None = None,
        close_code: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        #: The response that said no, if one did.
        self.response = response
        #: How the connection was closed, if that is why.
        self.close_code = close_code

    def __repr__(self) -> str:
        return f"ValtronicsError({self.code!r}, {self.message!r})"


def refusal(response: dict[str, Any]) -> ValtronicsError:
    """Makes the error of a response that says no."""
    return ValtronicsError(response["error"], response.get("message", ""), response=response)
