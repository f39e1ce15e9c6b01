"""What must not be shown: passwords among the settings of the Kafka client, and `user:password@` in addresses."""

import re
from typing import Any

HIDDEN = "***"
_NAMES = ("password", "secret", "token", "key")
_USER = re.compile(r"(?<=://)[^/\s@]+(?=@)")


def without_users(text: str) -> str:
    """`text` with `***` for what stands before the @ of an address: `https://***@host/path`."""
    return _USER.sub(HIDDEN, text) if "@" in text else text


def without_secrets(content: Any, *, of_client: bool = False) -> Any:
    """A configuration's content (as `model_dump` gives it) with `***` for every secret.

    of_client whether this is `kafka.client` or lies in it: there, what is named like a secret is one; only where a
              secret comes from (a mapping, such as `{file: ...}`) is shown
    """
    if isinstance(content, dict):
        return {
            name: HIDDEN
            if of_client and not isinstance(value, dict) and any(word in name.lower() for word in _NAMES)
            else without_secrets(value, of_client=of_client or name == "client")
            for name, value in content.items()
        }
    if isinstance(content, list | tuple):
        return [without_secrets(value, of_client=of_client) for value in content]
    return without_users(content) if isinstance(content, str) else content
