"""Why a connection is not as safe as the URL says, or not with whom it says, in words.

Rule of this file: what to do depends on the reason, so each has a sentence of its own: no TLS there, TLS where nobody
asked for it, a certificate of nobody who is known, of another name, or of another time.
"""

import ssl
from typing import Final, TypeVar

import anyio

from holdfast.errors import BrokenProtocol, ConnectionFailed, ServerUntrusted

_OTHER_NAME: Final = frozenset({62, 64})
_OTHER_TIME: Final = frozenset({9, 10})
"""As OpenSSL numbers them (X509_V_ERR_...)."""
_PATIENCE: Final = 3.0
"""Seconds."""

AnyError = TypeVar("AnyError", bound=BaseException)


def cause_of(error: BaseException, kind: type[AnyError]) -> AnyError | None:
    """The error of this kind that another one came of."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, kind):
        cause = cause.__cause__ or cause.__context__
    return cause


def untrusted(where: str, error: BaseException) -> ServerUntrusted | None:
    """Ours, if this one came of a certificate that was looked at."""
    cause = cause_of(error, ssl.SSLCertVerificationError)
    if cause is None:
        return None
    reason = cause.verify_message.rstrip(".")
    if cause.verify_code in _OTHER_NAME:
        return ServerUntrusted(
            f"the certificate of {where} is not for that name ({reason}); give the URL with the name that the server"
            " has a certificate for"
        )
    if cause.verify_code in _OTHER_TIME:
        return ServerUntrusted(
            f"the certificate of {where} is not good now ({reason}); if the clock here is right, whoever runs the"
            " server has to renew it"
        )
    return ServerUntrusted(
        f"the certificate of {where} cannot be relied on ({reason}); check the address, or name the authority that"
        " it is of (--cacert FILE, verify=)"
    )


def unencrypted(where: str, error: ssl.SSLError) -> ConnectionFailed | BrokenProtocol:
    """Ours for a connection on which TLS could not be agreed on."""
    if isinstance(error, ssl.SSLEOFError | ssl.SSLSyscallError | ssl.SSLZeroReturnError):
        return ConnectionFailed(f"{where} broke the connection off before TLS was agreed on; is https:// right there?")
    reason = (error.reason or str(error)).replace("_", " ").lower()
    return BrokenProtocol(
        f"{where} does not speak TLS as it is understood here ({reason}); is it http:// that is right there?"
    )


async def speaks_tls(host: str, port: int) -> bool:
    """Whether this port answers to the beginning of TLS as one does that speaks it. Makes a connection, over which
    nothing else is said; in doubt it is False, after three seconds at most.
    """
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False  # nothing is told, so it does not matter to whom
    anybody.verify_mode = ssl.CERT_NONE
    try:
        with anyio.fail_after(_PATIENCE):
            stream = await anyio.connect_tcp(
                host, port, tls=True, ssl_context=anybody, tls_hostname=host, tls_standard_compatible=False
            )
            await anyio.aclose_forcefully(stream)
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")  # it said in TLS that it will not
    except (OSError, TimeoutError, anyio.BrokenResourceError, anyio.EndOfStream):
        return False
    return True
