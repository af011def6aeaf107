"""Who calls, by the token of the request, and whether they may."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from sahool_dlq.serving.tokens import RIGHTS, Token, Tokens

__all__ = ["needs"]

_BEARER = HTTPBearer(
    auto_error=False, scheme_name="token", description="A token that `dlq tokens add` printed."
)


def needs(right: str) -> Callable[..., Token]:
    """The dependency that finds the caller; 401 without a valid token, 403 without the right."""

    def caller(
        request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
    ) -> Token:
        tokens: Tokens = request.app.state.tokens
        if given is None:
            raise _unknown("Send a token: the header Authorization: Bearer TOKEN")
        holder = tokens.holder(given.credentials)
        if holder is None:
            raise _unknown("The token is not valid: `dlq tokens add` creates one")
        if right not in holder.rights:
            able = " or ".join(role for role, rights in RIGHTS.items() if right in rights)
            raise HTTPException(
                403, f"The token {holder.name} may not do this: it needs the role {able}"
            )
        return holder

    return caller


def _unknown(detail: str) -> HTTPException:
    return HTTPException(401, detail, {"WWW-Authenticate": "Bearer"})
