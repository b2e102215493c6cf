"""What a tier's setting names: addresses, names to look up again, files to watch."""

from dataclasses import dataclass
from pathlib import Path

from protos.wire.addresses import split

MAX_FILE_BYTES = 256 * 1024

FORMS = "HOST:PORT, dns:NAME:PORT, srv:NAME or file:PATH"


@dataclass(frozen=True, slots=True)
class Listed:
    """One address. Of a name with several records gRPC takes one and stays with it."""

    address: str


@dataclass(frozen=True, slots=True)
class Named:
    """`dns:NAME:PORT`: every A and AAAA record of the name is an address with this port."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"dns:{self.name}:{self.port}"


@dataclass(frozen=True, slots=True)
class Service:
    """`srv:NAME`: hosts and ports by the SRV records of the lowest priority number."""

    name: str

    def __str__(self) -> str:
        return f"srv:{self.name}"


@dataclass(frozen=True, slots=True)
class Watched:
    """`file:PATH`: one HOST:PORT a line, blank lines and what follows a `#` left out."""

    path: str

    def __str__(self) -> str:
        return f"file:{self.path}"


Source = Listed | Named | Service | Watched


def source_of(entry: str) -> Source:
    """What one entry of the setting names.

    Raises:
        ValueError: it has none of the forms; the text says which there are.
    """
    kind, _, rest = entry.partition(":")
    match kind:
        case "dns":
            return Named(*split(rest))
        case "srv":
            if not rest or any(sign in rest for sign in ":/ "):
                raise ValueError(f"{entry!r} names no service, expected srv:NAME")
            return Service(rest)
        case "file":
            if not rest:
                raise ValueError(f"{entry!r} names no file, expected file:PATH")
            return Watched(rest)
    try:
        split(entry)
    except ValueError as error:
        raise ValueError(f"{error}; the forms are {FORMS}") from error
    return Listed(entry)


def read_file(path: str) -> list[str]:
    """The addresses of a watched file, in its order.

    Raises:
        ValueError: it cannot be read, is too large, or a line is no address; the text says which.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        text = data.decode()
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is no text in UTF-8") from error
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_FILE_BYTES} bytes")
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    listed = [line for line in lines if line]
    for address in listed:
        split(address)
    return listed
