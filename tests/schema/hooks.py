"""What schemathesis is told of the gateway's document; it loads this by SCHEMATHESIS_HOOKS.

Formats say what a string holds (an image), rules between fields are settled before a request that
should be accepted is sent, and the few refusals that no JSON schema can foresee are named in
`UNFORESEEN`, each with its reason. Events of streams are compared with their schema, too.
"""

import re
from typing import Any

import schemathesis

from tests.schema import files, settling
from tests.schema.streams import allows, events, faults, without_nulls

# A refusal (400) of a request that the document allows, by its message.
UNFORESEEN = {
    "tokens, not characters, count, and only the tokenizer knows them": (
        r"maximum context length|bytes of text, expected at most"
    ),
    "which ids there are is the checkpoint's vocabulary": r"expected 0 to \d+$|placeholder",
    "which options there are is the checkpoint's template": r"template reads|server sets it itself",
    "what a template does with an order of turns is its own": (
        r"chat template (leaves|interprets)|refused by the model's chat template"
    ),
    "text must be somewhere, in any of the messages": r"hold neither text nor images",
    "how many a request may hold is a setting": r"(images|videos|content parts), expected at most",
    "frames are of one video, and so of one size": r"frames of different sizes",
    "the wire's numbers are float32, whose least is far above float64's": r"penalty is 0\.0,",
}
_UNFORESEEN = re.compile("|".join(UNFORESEEN.values()))

for name, strategy in files.FORMATS.items():
    schemathesis.openapi.format(name, strategy)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Settles rules between fields in what should be accepted."""
    if case.meta is not None and case.meta.generation.mode.is_positive:
        case.body = settling.settled(case.operation.path, case.body)


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Whether a failure counts."""
    return _counts(failure, case, response)


def _counts(failure: Any, case: Any, response: Any) -> bool:
    if failure.title == "SSE event violates schema":
        # It takes the schema for that of an event with its name; OpenAPI 3.1 has no form for
        # events, and ours is of their data. `events_as_told` looks at every one.
        return False
    if type(failure).__name__ == "AcceptedNegativeData":
        # A request without a question loads the model; nothing else of it is read.
        is_load = '"done_reason":"load"' in response.text
        # Null says nothing, in fields that nobody knows as well: clients send all they know.
        document, path = case.operation.schema.raw_schema, case.operation.path
        return not is_load and not allows(document, path, without_nulls(case.body))
    is_refusal = type(failure).__name__ == "RejectedPositiveData" and response.status_code == 400
    return not (is_refusal and _UNFORESEEN.search(response.text))


@schemathesis.deserializer("application/x-ndjson")
def lines(context: Any, response: Any) -> Any:
    """The first line of a stream; `events_as_told` looks at all."""
    return events(response.text, "application/x-ndjson")[0]


@schemathesis.check
def events_as_told(ctx: Any, response: Any, case: Any) -> None:
    """Every event of a stream is of its schema, and the stream ends as its API says."""
    kind = response.headers.get("content-type", [""])[0].partition(";")[0]
    if kind in ("text/event-stream", "application/x-ndjson"):
        found = faults(case.operation.schema.raw_schema, case.operation.path, kind, response.text)
        assert not found, found


@schemathesis.check
def ids_and_manners(ctx: Any, response: Any, case: Any) -> None:
    """Every answer has the request's id, and tells neither code nor places of this machine."""
    assert response.headers.get("x-request-id"), "no request id"
    if response.status_code >= 400:
        assert not LEAKS.search(response.text), "an error tells of the machine"


LEAKS = re.compile(r"Traceback|File \"|/tmp/|/home/|site-packages|0x[0-9a-f]{6}|BytesIO")
