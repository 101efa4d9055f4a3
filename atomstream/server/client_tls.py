"""TLS towards the services of a cluster: the context of a connection that the server opens itself."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from atomstream.errors import ConfigError


def client_context(of: str, files: Mapping[str, str], names: tuple[str, str, str]) -> ssl.SSLContext:
    """The context of connections to a service, which checks its certificate and name.

    ``files`` has the paths that the user gave, by the names of the options. ``names`` are those of the authority, of
    our own certificate and of its key; each may be missing.

    Raises:
        ConfigError: a file can't be used; the message begins with ``of`` and has all paths.
    """
    authority, certificate, key = names
    try:
        context = ssl.create_default_context(cafile=files.get(authority))
        if certificate in files:
            context.load_cert_chain(files[certificate], files.get(key))
    except (OSError, ssl.SSLError) as error:
        named = ", ".join(f"{name}={path}" for name, path in files.items())
        raise ConfigError(
            f"{of}: the TLS files ({named}) can't be used: {error.strerror or error}."
        ) from None
    return context
