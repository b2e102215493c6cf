"""Malformed Generate calls and how each must be refused."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from protos.bundle.manifest import Manifest
from protos.tandem.v1 import decoder_pb2, tensor_pb2
from protos.wire import tensors
from protos.wire.errors import Reason
from tests.e2e.decoder_client import Start, make_features, make_start, to_chunks

Message = decoder_pb2.GenerateRequest
SPAN = (4, 7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """One call, and the reason and param of its refusal."""

    name: str
    messages: list[Message]
    reason: Reason
    param: str | None


def starts(manifest: Manifest, max_context: int) -> Iterator[Malformed]:
    """Calls whose first message is at fault."""

    def case(
        name: str, change: Callable[[Start], object], param: str, reason: Reason | None = None
    ) -> Malformed:
        start = make_start(manifest, "malformed", spans=[SPAN])
        change(start)
        return Malformed(
            name=name,
            messages=[Message(start=start)],
            reason=reason or Reason.INVALID_PARAMETER,
            param=param,
        )

    vocab, text = manifest.text.vocab_size, manifest.text
    yield case("no request id", lambda s: s.ClearField("request_id"), "request_id")
    yield case("long request id", lambda s: set_(s, request_id="x" * 129), "request_id")
    yield case("control characters", lambda s: set_(s, request_id="a\nb"), "request_id")
    yield case(
        "other bundle",
        lambda s: set_(s, bundle_digest="0" * 64),
        "bundle_digest",
        Reason.MODEL_MISMATCH,
    )
    yield case("salt too long", lambda s: set_(s, cache_salt=b"x" * 257), "cache_salt")
    yield case("priority", lambda s: set_(s, priority=101), "priority")
    yield case(
        "constraint after a token, without one",
        lambda s: set_(s, constraint_after_token=1),
        "constraint_after_token",
    )
    yield case("no tokens", lambda s: s.ClearField("input_ids"), "input_ids")
    yield case("negative id", lambda s: put(s.input_ids, 0, -1), "input_ids")
    yield case("id beyond the vocabulary", lambda s: put(s.input_ids, 0, vocab), "input_ids")
    yield case(
        "video placeholder",
        lambda s: put(s.input_ids, 0, manifest.special_tokens.video),
        "visual_spans",
        Reason.INVALID_SPAN,
    )
    yield case(
        "prompt too long",
        lambda s: s.input_ids.extend([1] * max_context),
        "input_ids",
        Reason.CONTEXT_LENGTH_EXCEEDED,
    )
    yield from _positions(manifest, case)
    yield from _spans(case)
    yield from _sampling(vocab, case)
    yield from _stops_and_reports(vocab, case)
    assert text.max_position_embeddings >= max_context


Case = Callable[..., Malformed]


def _positions(manifest: Manifest, case: Case) -> Iterator[Malformed]:
    field, end = "position_ids", manifest.text.max_position_embeddings

    def positions(array: np.ndarray) -> Callable[[Start], object]:
        return lambda s: s.position_ids.CopyFrom(tensors.to_proto(array))

    good = np.tile(np.arange(20, dtype=np.int32), (3, 1))
    shape, dtype = Reason.SHAPE_MISMATCH, Reason.UNSUPPORTED_DTYPE
    yield case("no positions", lambda s: s.ClearField(field), field, dtype)
    yield case("int64 positions", positions(good.astype(np.int64)), field, dtype)
    yield case("short positions", positions(good[:, :19]), field, shape)
    yield case("two axes", positions(good[:2]), field, shape)
    yield case("flat positions", positions(good.ravel()), field, shape)
    yield case("missing bytes", lambda s: set_(s.position_ids, data=b"1234"), field, shape)
    yield case("huge shape", lambda s: put(s.position_ids.shape, 1, 2**62), field, shape)
    yield case("negative shape", lambda s: put(s.position_ids.shape, 1, -20), field, shape)
    yield case("negative position", positions(good - 1), field)
    yield case("position beyond the model", positions(good + end), field)
    yield case("delta below", lambda s: set_(s, position_delta=-21), "position_delta")
    yield case("delta above", lambda s: set_(s, position_delta=end), "position_delta")
    yield case("extreme delta", lambda s: set_(s, position_delta=2**31 - 1), "position_delta")


def _spans(case: Case) -> Iterator[Malformed]:
    invalid = Reason.INVALID_SPAN
    first = "visual_spans[0]"
    for name, offset, length in (
        ("empty span", 4, 0),
        ("negative span length", 4, -7),
        ("negative span offset", -1, 7),
        ("span beyond the prompt", 14, 7),
        ("span overflow", 2**31 - 1, 2**31 - 1),
    ):
        yield case(
            name,
            lambda s, o=offset, n=length: set_(s.visual_spans[0], offset=o, length=n),
            first,
            invalid,
        )
    yield case(
        "overlap",
        lambda s: s.visual_spans.add(offset=6, length=7),
        "visual_spans[1]",
        invalid,
    )
    yield case(
        "span over text", lambda s: set_(s.visual_spans[0], length=8), "visual_spans", invalid
    )
    yield case(
        "placeholder without span",
        lambda s: set_(s.visual_spans[0], length=6),
        "visual_spans",
        invalid,
    )
    yield case("no spans", lambda s: s.ClearField("visual_spans"), "visual_spans", invalid)
    yield case(
        "long digest",
        lambda s: set_(s.visual_spans[0], digest=b"x" * 65),
        f"{first}.digest",
        invalid,
    )


def _sampling(vocab: int, case: Case) -> Iterator[Malformed]:
    nan = float("nan")
    for field, values in {
        "temperature": (-0.1, 2.1, nan, float("inf")),
        "top_p": (-0.1, 1.1, -1.0, nan),
        "top_k": (-1,),
        "min_p": (-0.1, 1.1, nan),
        "repetition_penalty": (0.0, 2.1, -1.0, nan),
        "presence_penalty": (-2.1, 2.1, nan),
        "frequency_penalty": (-2.1, 2.1, nan),
    }.items():
        for value in values:
            yield case(
                f"{field} {value}",
                lambda s, f=field, v=value: set_(s.sampling_params, **{f: v}),
                f"sampling_params.{field}",
            )

    def biases(*entries: tuple[int, float]) -> Callable[[Start], object]:
        def change(start: Start) -> None:
            for token_id, bias in entries:
                start.sampling_params.logit_bias.add(token_id=token_id, bias=bias)

        return change

    bias = "sampling_params.logit_bias"
    yield case("bias on no token", biases((vocab, 1.0)), f"{bias}[0].token_id")
    yield case("bias too large", biases((1, 1.0), (2, 101.0)), f"{bias}[1].bias")
    yield case("bias NaN", biases((1, nan)), f"{bias}[0].bias")
    yield case("bias twice", biases((1, 1.0), (1, 2.0)), f"{bias}[1].token_id")
    yield case("too many biases", biases(*((i, 0.0) for i in range(301))), bias)


def _stops_and_reports(vocab: int, case: Case) -> Iterator[Malformed]:
    stop, report = "stop_conditions", "report_options"
    for count in (0, -1):
        yield case(
            f"max_tokens {count}",
            lambda s, c=count: set_(s.stop_conditions, max_tokens=c),
            f"{stop}.max_tokens",
        )
    yield case(
        "stop on no token",
        lambda s: s.stop_conditions.stop_token_ids.append(vocab),
        f"{stop}.stop_token_ids[0]",
    )
    yield case(
        "too many stops",
        lambda s: s.stop_conditions.stop_token_ids.extend([1] * 65),
        f"{stop}.stop_token_ids",
    )
    for count in (-1, 21):
        yield case(
            f"top_logprob_count {count}",
            lambda s, c=count: set_(s.report_options, logprobs=True, top_logprob_count=c),
            f"{report}.top_logprob_count",
        )
    yield case(
        "top without logprobs",
        lambda s: set_(s.report_options, top_logprob_count=3),
        f"{report}.top_logprob_count",
    )
    yield case(
        "logits not allowed",
        lambda s: set_(s.report_options, logits=True),
        f"{report}.logits",
        Reason.NOT_SUPPORTED,
    )


def conversations(manifest: Manifest) -> Iterator[Malformed]:
    """Calls whose later messages are at fault."""
    # Long answers: a fault after the last row must not come after the last token.
    start = Message(start=make_start(manifest, "malformed", spans=[SPAN], max_tokens=1000))
    text_start = Message(start=make_start(manifest, "malformed", max_tokens=1000))
    good = to_chunks(make_features(manifest, SPAN[1]))

    def case(name: str, messages: list[Message], reason: Reason, param: str | None) -> Malformed:
        return Malformed(name=name, messages=messages, reason=reason, param=param)

    def changed(
        change: Callable[[tensor_pb2.FeatureChunk], object], span: int = 0
    ) -> list[Message]:
        message = Message()
        message.CopyFrom(good[0])
        message.features.span_index = span
        message.features.chunk.ClearField("crc32")
        change(message.features.chunk)
        return [start, message, *good[1:]]

    def values(array: np.ndarray) -> Callable[[tensor_pb2.FeatureChunk], object]:
        return lambda c: c.values.CopyFrom(tensors.to_proto(array))

    rows = make_features(manifest, 3)[0]
    broken = rows.copy()
    broken[1, 1] = np.nan
    chunk, span = "features.chunk", Reason.INVALID_SPAN
    bad = Reason.INVALID_PARAMETER
    levels = 1 + manifest.deepstack_level_count
    yield case("features first", good, bad, "start")
    yield case("empty message", [Message()], bad, "start")
    yield case("nothing at all", [], bad, "start")
    yield case("start twice", [start, start], bad, "start")
    yield case("empty second message", [start, Message()], bad, "start")
    yield case("ends early", [start, *good[:-1]], span, "features")
    yield case("no features", [start], span, "features")
    yield case("rows twice", [start, *good[:2], good[1]], span, f"{chunk}.row_offset")
    yield case("all twice", [start, *good, good[0]], span, f"{chunk}.row_offset")
    for name, index in (("other span", 1), ("negative span", -1)):
        yield case(name, changed(lambda c: None, index), span, "features.span_index")
    yield case("features for text", [text_start, *good], span, "features.span_index")
    yield case("level too high", changed(lambda c: set_(c, level=levels)), span, f"{chunk}.level")
    yield case("negative level", changed(lambda c: set_(c, level=-1)), span, f"{chunk}.level")
    for offset in (-1, 5, 2**31 - 1):
        change = functools.partial(set_, row_offset=offset)
        yield case(f"row offset {offset}", changed(change), span, f"{chunk}.row_offset")
    tensor, shape = f"{chunk}.values", Reason.SHAPE_MISMATCH
    yield case("no rows", changed(values(rows[:0])), shape, tensor)
    yield case("narrow rows", changed(values(rows[:, :-1].copy())), shape, tensor)
    yield case("flat rows", changed(values(rows.ravel())), shape, tensor)
    yield case("missing bytes", changed(lambda c: set_(c.values, data=b"")), shape, tensor)
    yield case("int rows", changed(values(rows.astype(np.int32))), Reason.UNSUPPORTED_DTYPE, tensor)
    yield case("NaN", changed(values(broken)), Reason.NON_FINITE, tensor)
    yield case("infinity", changed(values(rows * np.float32(np.inf))), Reason.NON_FINITE, tensor)
    yield case("wrong crc", changed(lambda c: set_(c, crc32=1)), Reason.DATA_LOSS, tensor)
    huge = np.full_like(make_features(manifest, SPAN[1]), 3e38)
    yield case("overflow", [start, *to_chunks(huge)], Reason.NON_FINITE, "features")


def set_(message: object, **fields: object) -> None:
    """Sets fields of a message."""
    for name, value in fields.items():
        setattr(message, name, value)


def put(container: object, index: int, value: int) -> None:
    """Sets one element of a repeated field."""
    container[index] = value  # type: ignore[index]
