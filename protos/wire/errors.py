"""Every error a client can see: one table of reason, gRPC code, HTTP status and OpenAI type.

Domain code raises a `ServiceError`; the RPC edge (`reporting_errors`) turns it into a
`google.rpc.Status` with `ErrorInfo`; the other end (`from_rpc_error`) gets the same error back.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, NoReturn, Self

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

logger = logging.getLogger(__name__)

DOMAIN = "tandem"


class Reason(StrEnum):
    """Why a request failed. May grow; unknown reasons are treated as INTERNAL."""

    INVALID_PARAMETER = "INVALID_PARAMETER"
    SHAPE_MISMATCH = "SHAPE_MISMATCH"
    UNSUPPORTED_DTYPE = "UNSUPPORTED_DTYPE"
    NON_FINITE = "NON_FINITE"
    INVALID_SPAN = "INVALID_SPAN"
    INVALID_IMAGE = "INVALID_IMAGE"
    IMAGE_TOO_LARGE = "IMAGE_TOO_LARGE"
    INVALID_VIDEO = "INVALID_VIDEO"
    VIDEO_TOO_LARGE = "VIDEO_TOO_LARGE"
    INVALID_PDF = "INVALID_PDF"
    PDF_TOO_LARGE = "PDF_TOO_LARGE"
    UNSUPPORTED_MEDIA = "UNSUPPORTED_MEDIA"
    URL_NOT_ALLOWED = "URL_NOT_ALLOWED"
    MEDIA_FETCH_FAILED = "MEDIA_FETCH_FAILED"
    MEDIA_FETCH_TIMEOUT = "MEDIA_FETCH_TIMEOUT"
    INVALID_SCHEMA = "INVALID_SCHEMA"
    CONTEXT_LENGTH_EXCEEDED = "CONTEXT_LENGTH_EXCEEDED"
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE"
    UNSUPPORTED_ENCODING = "UNSUPPORTED_ENCODING"
    INVALID_API_KEY = "INVALID_API_KEY"
    INVALID_TOKEN = "INVALID_TOKEN"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    NOT_FOUND = "NOT_FOUND"
    REQUEST_ID_IN_USE = "REQUEST_ID_IN_USE"
    MODEL_MISMATCH = "MODEL_MISMATCH"
    QUEUE_FULL = "QUEUE_FULL"
    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
    LOADING = "LOADING"
    DRAINING = "DRAINING"
    VISION_UNAVAILABLE = "VISION_UNAVAILABLE"
    DECODER_UNAVAILABLE = "DECODER_UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    DATA_LOSS = "DATA_LOSS"
    VIDEO_NOT_SUPPORTED = "VIDEO_NOT_SUPPORTED"
    NOT_SUPPORTED = "NOT_SUPPORTED"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """How one reason shows on each surface."""

    code: grpc.StatusCode
    http_status: int
    type: str  # OpenAI error type
    openai_code: str  # OpenAI error code


def _bad_request(openai_code: str = "invalid_parameter") -> ErrorKind:
    return ErrorKind(grpc.StatusCode.INVALID_ARGUMENT, 400, "invalid_request_error", openai_code)


def _unavailable(openai_code: str) -> ErrorKind:
    return ErrorKind(grpc.StatusCode.UNAVAILABLE, 503, "unavailable_error", openai_code)


def _unsupported(openai_code: str) -> ErrorKind:
    """400 and not HTTP's 501, which clients take for a fault of the server and send again."""
    return ErrorKind(grpc.StatusCode.UNIMPLEMENTED, 400, "invalid_request_error", openai_code)


_S = grpc.StatusCode
ERROR_TABLE: Mapping[Reason, ErrorKind] = {
    Reason.INVALID_PARAMETER: _bad_request(),
    Reason.SHAPE_MISMATCH: _bad_request(),
    Reason.UNSUPPORTED_DTYPE: _bad_request(),
    Reason.NON_FINITE: _bad_request(),
    Reason.INVALID_SPAN: _bad_request(),
    Reason.INVALID_IMAGE: _bad_request("invalid_image"),
    Reason.IMAGE_TOO_LARGE: _bad_request("image_too_large"),
    Reason.INVALID_VIDEO: _bad_request("invalid_video"),
    Reason.VIDEO_TOO_LARGE: _bad_request("video_too_large"),
    Reason.INVALID_PDF: _bad_request("invalid_pdf"),
    Reason.PDF_TOO_LARGE: _bad_request("pdf_too_large"),
    Reason.UNSUPPORTED_MEDIA: _bad_request("unsupported_media"),
    Reason.URL_NOT_ALLOWED: _bad_request("url_not_allowed"),
    Reason.MEDIA_FETCH_FAILED: _bad_request("media_fetch_failed"),
    Reason.MEDIA_FETCH_TIMEOUT: ErrorKind(
        _S.DEADLINE_EXCEEDED, 504, "timeout_error", "media_fetch_timeout"
    ),
    Reason.INVALID_SCHEMA: _bad_request("invalid_schema"),
    Reason.CONTEXT_LENGTH_EXCEEDED: _bad_request("context_length_exceeded"),
    Reason.REQUEST_TOO_LARGE: ErrorKind(
        _S.INVALID_ARGUMENT, 413, "invalid_request_error", "request_too_large"
    ),
    Reason.UNSUPPORTED_ENCODING: ErrorKind(
        _S.INVALID_ARGUMENT, 415, "invalid_request_error", "unsupported_encoding"
    ),
    Reason.INVALID_API_KEY: ErrorKind(
        _S.UNAUTHENTICATED, 401, "authentication_error", "invalid_api_key"
    ),
    # Between services alone: what a gateway's clients see of it, `from_rpc_error` says.
    Reason.INVALID_TOKEN: ErrorKind(_S.UNAUTHENTICATED, 503, "unavailable_error", "invalid_token"),
    Reason.MODEL_NOT_FOUND: ErrorKind(_S.NOT_FOUND, 404, "not_found_error", "model_not_found"),
    Reason.NOT_FOUND: ErrorKind(_S.NOT_FOUND, 404, "not_found_error", "not_found"),
    Reason.REQUEST_ID_IN_USE: ErrorKind(
        _S.ALREADY_EXISTS, 409, "invalid_request_error", "request_id_in_use"
    ),
    Reason.MODEL_MISMATCH: ErrorKind(
        _S.FAILED_PRECONDITION, 503, "unavailable_error", "model_mismatch"
    ),
    Reason.QUEUE_FULL: ErrorKind(_S.RESOURCE_EXHAUSTED, 429, "rate_limit_error", "queue_full"),
    Reason.RATE_LIMIT_EXCEEDED: ErrorKind(
        _S.RESOURCE_EXHAUSTED, 429, "rate_limit_error", "rate_limit_exceeded"
    ),
    Reason.LOADING: _unavailable("loading"),
    Reason.DRAINING: _unavailable("draining"),
    Reason.VISION_UNAVAILABLE: _unavailable("vision_unavailable"),
    Reason.DECODER_UNAVAILABLE: _unavailable("decoder_unavailable"),
    Reason.DEADLINE_EXCEEDED: ErrorKind(
        _S.DEADLINE_EXCEEDED, 504, "timeout_error", "deadline_exceeded"
    ),
    Reason.CANCELLED: ErrorKind(_S.CANCELLED, 499, "invalid_request_error", "client_closed"),
    Reason.DATA_LOSS: ErrorKind(_S.DATA_LOSS, 500, "server_error", "data_loss"),
    Reason.VIDEO_NOT_SUPPORTED: _unsupported("video_not_supported"),
    Reason.NOT_SUPPORTED: _unsupported("not_supported"),
    Reason.INTERNAL: ErrorKind(_S.INTERNAL, 500, "server_error", "internal_error"),
}


class ServiceError(Exception):
    """An error whose text may be shown to the client.

    Args:
        message: One sentence naming the field, what was expected and what came.
        reason: Row of `ERROR_TABLE`.
        param: The request field at fault, in the client's own spelling.
        retry_after_s: How long the client should wait, seconds, where waiting helps.
    """

    default_reason = Reason.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        reason: Reason | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def kind(self) -> ErrorKind:
        """The row of `ERROR_TABLE` this error shows as."""
        return ERROR_TABLE[self.reason]


class InvalidRequest(ServiceError):
    """The request can never succeed as it is."""

    default_reason = Reason.INVALID_PARAMETER


class PromptTooLong(InvalidRequest):
    """Prompt, or prompt and completion, exceed the context window."""

    default_reason = Reason.CONTEXT_LENGTH_EXCEEDED

    @classmethod
    def of(cls, window: int, what: str, *, param: str) -> Self:
        """The error in OpenAI's words, because clients that shorten a prompt by themselves know
        one by them: LiteLLM by the first sentence, LangChain by the code, which the newest openai
        client leaves out of an error's text, or, for Node, by the words before it.

        Args:
            window: Tokens of the context window.
            what: What does not fit, with the counts.
            param: The request field at fault.
        """
        return cls(
            f"This model's maximum context length is {window} tokens. However, {what}, which"
            " exceeds the context window (context_length_exceeded)",
            param=param,
        )


class ModelNotFound(ServiceError):
    """No such model is served here."""

    default_reason = Reason.MODEL_NOT_FOUND


class AlreadyExists(ServiceError):
    """The request's id is that of another one in flight; it can succeed under its own."""

    default_reason = Reason.REQUEST_ID_IN_USE


class ModelMismatch(ServiceError):
    """Two tiers serve different bundles; an operator must mend it."""

    default_reason = Reason.MODEL_MISMATCH


class Overloaded(ServiceError):
    """A bounded queue is full."""

    default_reason = Reason.QUEUE_FULL


class RateLimited(ServiceError):
    """A key has used what it may use of something in a minute."""

    default_reason = Reason.RATE_LIMIT_EXCEEDED


class Unavailable(ServiceError):
    """A tier is not there, loading or draining; retrying later helps."""

    default_reason = Reason.LOADING


class DeadlineExceeded(ServiceError):
    """The caller's time is used up."""

    default_reason = Reason.DEADLINE_EXCEEDED


class Unsupported(ServiceError):
    """The request asks for something this server does not do."""

    default_reason = Reason.NOT_SUPPORTED


class InternalError(ServiceError):
    """A bug on our side; the text never carries detail."""

    default_reason = Reason.INTERNAL


_CLASSES: Mapping[Reason, type[ServiceError]] = {
    **{
        reason: InvalidRequest
        for reason, kind in ERROR_TABLE.items()
        if kind.code is grpc.StatusCode.INVALID_ARGUMENT
    },
    Reason.CONTEXT_LENGTH_EXCEEDED: PromptTooLong,
    Reason.MODEL_NOT_FOUND: ModelNotFound,
    Reason.REQUEST_ID_IN_USE: AlreadyExists,
    Reason.MODEL_MISMATCH: ModelMismatch,
    Reason.QUEUE_FULL: Overloaded,
    Reason.RATE_LIMIT_EXCEEDED: RateLimited,
    Reason.LOADING: Unavailable,
    Reason.DRAINING: Unavailable,
    Reason.VISION_UNAVAILABLE: Unavailable,
    Reason.DECODER_UNAVAILABLE: Unavailable,
    Reason.DEADLINE_EXCEEDED: DeadlineExceeded,
    Reason.VIDEO_NOT_SUPPORTED: Unsupported,
    Reason.NOT_SUPPORTED: Unsupported,
    Reason.INTERNAL: InternalError,
}


def error_for(
    reason: Reason,
    message: str,
    *,
    param: str | None = None,
    retry_after_s: float | None = None,
) -> ServiceError:
    """Builds the exception class that belongs to `reason`."""
    cls = _CLASSES.get(reason, ServiceError)
    return cls(message, reason=reason, param=param, retry_after_s=retry_after_s)


def to_status(error: ServiceError) -> status_pb2.Status:
    """Encodes an error as `google.rpc.Status` with `ErrorInfo` and, if asked, `RetryInfo`."""
    info = error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN)
    if error.param is not None:
        info.metadata["param"] = error.param
    status = status_pb2.Status(code=getattr(code_pb2, error.kind.code.name), message=error.message)
    status.details.append(_packed(info))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status


def from_rpc_error(error: grpc.RpcError, *, unavailable: Reason | None = None) -> ServiceError:
    """Decodes what a peer reported.

    Args:
        error: What a call raised.
        unavailable: Reason to use when the peer was not reached at all, or refuses our token,
            which is no fault of whom this process serves; None: LOADING, and the refusal itself.

    Returns:
        The peer's own error when it sent one of ours. Otherwise an error by gRPC code alone,
        never with the transport's text, which may hold addresses.
    """
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    if status is not None:
        decoded = _from_status(status)
        if decoded is not None and (
            unavailable is None or decoded.reason is not Reason.INVALID_TOKEN
        ):
            return decoded
    code = error.code() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED):
        return error_for(
            unavailable or Reason.LOADING, "the service is not reachable", retry_after_s=1.0
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded("the deadline passed before the answer was complete")
    if code is grpc.StatusCode.CANCELLED:
        return ServiceError("the call was cancelled", reason=Reason.CANCELLED)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return InvalidRequest("the message is too large", reason=Reason.REQUEST_TOO_LARGE)
    return InternalError("internal error")


def _from_status(status: status_pb2.Status) -> ServiceError | None:
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    found, retry_after_s = False, None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR) and detail.Unpack(info):
            found = info.domain == DOMAIN
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) and detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    if not found:
        return None
    reason = Reason(info.reason) if info.reason in Reason.__members__ else Reason.INTERNAL
    param = info.metadata.get("param")
    return error_for(reason, status.message, param=param, retry_after_s=retry_after_s)


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: ServiceError) -> NoReturn:
    """Ends an RPC with `error`; raises grpc's own abort exception."""
    await context.abort_with_status(rpc_status.to_status(to_status(error)))


class reporting_errors:
    """The RPC edge: every RPC handler runs inside `async with reporting_errors(context)`.

    A `ServiceError` reaches the client as itself; anything else is logged once with its
    traceback and reaches the client as INTERNAL without detail. Nothing is swallowed, which the
    type of `__aexit__` says: a handler need not return behind the block.
    """

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self._context = context

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, ServiceError):
            await abort(self._context, error)
        # Cancelling, and the end of an abandoned stream, are no `Exception`; an aborted call has
        # its status.
        if isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            # A bug in one call must not show its text to the client.
            logger.error("unhandled error in an RPC", exc_info=error)
            await abort(self._context, InternalError("internal error"))
