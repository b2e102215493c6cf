"""Arguments and options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Folder written by `tandem export`.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="TIER.NAME=VALUE",
        help="Any setting of a service, for example decoder.max-sequences=4;"
        " `tandem serve decoder --help` lists them. May be repeated.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(min=1, help="Compute threads of vision and of decoder each. Default: all cores."),
]
PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}  # to another module
SERVER_FORMS = "the URL that `tandem serve` prints, or HOST:PORT of its gRPC door."
KeyOption = Annotated[
    str | None, typer.Option(envvar="TANDEM_API_KEY", help="The server's key, if it has one.")
]
AuthorityOption = Annotated[
    Path | None,
    typer.Option(
        envvar="TANDEM_AUTHORITY",
        help="PEM file of who signed the server's certificate; speaks TLS, as an https URL does.",
    ),
]
CertificateOption = Annotated[
    Path | None,
    typer.Option(
        envvar="TANDEM_CERTIFICATE", help="PEM file of a certificate the server asks for."
    ),
]
CertificateKeyOption = Annotated[
    Path | None, typer.Option("--key", envvar="TANDEM_KEY", help="PEM file of its private key.")
]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Show the services' logs.")]
