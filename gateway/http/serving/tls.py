"""TLS of the HTTP door, with the certificate of the moment."""

import ssl

from protos.wire.credentials import CredentialFiles


def server_context(files: CredentialFiles) -> ssl.SSLContext:
    """What the HTTP door shows and asks for; each handshake follows the files.

    Args:
        files: Certificate and key; a client must show a certificate of the authority, where one
            is named.
    """
    secrets, context = files.current(), _context(files)

    def renew(connection: ssl.SSLObject, name: str | None, asked: ssl.SSLContext) -> None:
        nonlocal secrets, context
        if files.current() is not secrets:
            # The names of files, because this is how Python takes a key: one that changes just
            # now, and no longer fits, leaves what was there.
            try:
                secrets, context = files.current(), _context(files)
            except (OSError, ssl.SSLError):
                return
        connection.context = context

    context.sni_callback = renew  # called without a name, too
    return context


def _context(files: CredentialFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    credentials = files.credentials
    context.load_cert_chain(credentials.certificate or "", credentials.key)
    if credentials.authority is not None:
        context.load_verify_locations(credentials.authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
