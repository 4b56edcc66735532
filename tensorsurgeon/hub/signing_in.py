"""The token the Hub is asked with: the user's, or one that a CI job is given for an hour."""

import httpx2
from huggingface_hub import get_token
from huggingface_hub.errors import HfHubHTTPError, OIDCError

from tensorsurgeon.errors import HubError, printable, shortened
from tensorsurgeon.hub.errors import shown_endpoint


def has_token(repo: str) -> bool:
    """Whether there is a token. One for this job alone is asked for now, where it can have one.

    Args:
        repo: what it is for.

    Raises:
        HubError: the job should be given one, and is not.
    """
    try:
        return get_token() is not None
    except OIDCError as error:
        why = str(error)
    except HfHubHTTPError as error:
        said = error.server_message or f"answer {error.response.status_code}"
        who = shown_endpoint()
        if error.response.request.url.netloc != httpx2.URL(who).netloc:
            who = error.response.request.url.host
        why = f"{who} gives this job none: {said}"
    except httpx2.HTTPError as error:
        why = f"it cannot be asked for ({type(error).__name__})"
    raise HubError(
        f"no token: {printable(shortened(why, 300))}",
        where=repo,
        fix="look whether HF_OIDC_RESOURCE trusts this workflow, and whether it has "
        "'id-token: write'; or unset HF_OIDC_RESOURCE",
    )
