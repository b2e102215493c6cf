"""The options of `tandem bench --url`."""

from pathlib import Path
from typing import Annotated

import typer

PANEL = "A load on an endpoint that speaks OpenAI's API (--url)"

Url = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Its base: http://HOST:PORT/v1 of Tandem, vLLM, llama.cpp, Ollama ...",
        rich_help_panel=PANEL,
    ),
]
Model = Annotated[
    str | None, typer.Option(help="Default: the first it lists.", rich_help_panel=PANEL)
]
Rate = Annotated[
    float | None,
    typer.Option(
        min=1e-6,
        help="Requests a second at random moments, whatever became of those before. Default:"
        " --concurrency requests are always at work.",
        rich_help_panel=PANEL,
    ),
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Requests at once, 1 unless given; with --rate the most, unbounded unless given.",
        rich_help_panel=PANEL,
    ),
]
Requests = Annotated[
    int, typer.Option(min=1, help="Measured requests, after one warm-up.", rich_help_panel=PANEL)
]
Sizes = Annotated[
    str | None,
    typer.Option(
        metavar="WxH[:WEIGHT],...",
        help="What images are drawn from; none: text alone. Default: --width and --height.",
        rich_help_panel=PANEL,
    ),
]
Images = Annotated[int, typer.Option(min=0, help="In each request.", rich_help_panel=PANEL)]
VideoFrames = Annotated[
    int,
    typer.Option(
        min=0,
        help="Frames of a video in each request, sent as data:video/jpeg.",
        rich_help_panel=PANEL,
    ),
]
IgnoreEos = Annotated[
    bool,
    typer.Option(
        "--ignore-eos",
        help="Answers of exactly --tokens; not every server knows it.",
        rich_help_panel=PANEL,
    ),
]
TtftMs = Annotated[
    float | None,
    typer.Option(min=0, help="Goodput: first token within.", rich_help_panel=PANEL),
]
ItlMs = Annotated[
    float | None,
    typer.Option(
        min=0, help="Goodput: mean time of each further token within.", rich_help_panel=PANEL
    ),
]
Timeout = Annotated[
    float, typer.Option(min=0.001, help="Seconds one answer may take.", rich_help_panel=PANEL)
]
Seed = Annotated[int, typer.Option(help="Of moments and sizes.", rich_help_panel=PANEL)]
Plot = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write a PNG of every answer.", rich_help_panel=PANEL),
]
