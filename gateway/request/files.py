"""Files as parts of a conversation: PDFs are shown page by page, texts are read as they are."""

from gateway.media.pdfs import file_bytes, is_pdf
from gateway.media.sizing import ImageSizing
from gateway.media.sources import is_followed, not_allowed
from gateway.request.conversation import FilePart, TextPart
from protos.wire.errors import Reason, Unsupported


def file_part(
    data: bytes, *, name: str | None, sizing: ImageSizing, field: str
) -> TextPart | FilePart:
    """What a file is to a conversation; a text stands behind its name.

    Args:
        data: The file.
        name: What the client calls it, where it does.
        sizing: What the client says of the size of a PDF's pages.
        field: Its place in the request, for errors.

    Raises:
        Unsupported: UNSUPPORTED_MEDIA, neither a PDF nor text in UTF-8.
    """
    if is_pdf(data):
        return FilePart(data=data, name=name, sizing=sizing)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Unsupported(
            f"{field} is neither a PDF nor text in UTF-8; other files are not supported, images"
            " are sent as images",
            reason=Reason.UNSUPPORTED_MEDIA,
            param=field,
        ) from error
    return TextPart(text=text if name is None else f"{name}:\n{text}")


def file_at(url: str, *, name: str | None, sizing: ImageSizing, field: str) -> TextPart | FilePart:
    """What the file that a client names by URL is: one in a `data:` URL, or one to be fetched.

    Args:
        url: As the client sent it.
        name: What the client calls the file, where it does.
        sizing: What the client says of the size of a PDF's pages.
        field: Its place in the request, for errors.

    Raises:
        InvalidRequest: URL_NOT_ALLOWED, a scheme that is never followed; INVALID_IMAGE, not base64.
        Unsupported: UNSUPPORTED_MEDIA, the data are neither a PDF nor text in UTF-8.
    """
    if is_followed(url):
        return FilePart(url=url, name=name, sizing=sizing)
    if url[:5].lower() != "data:":
        raise not_allowed(field)
    return file_part(file_bytes(url, field=field), name=name, sizing=sizing, field=field)
