"""Questions whose answers `tandem verify` looks at number by number."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from deploy.client import ChatClient, Conversation
from deploy.terminal.screen import CommandError
from protos.bundle.manifest import SpecialTokens
from protos.tandem.v1 import decoder_pb2, gateway_pb2
from protos.wire import tensors

TOKENS = 32
IMAGE_SIZES = ((160, 96), (96, 128))  # width, height, pixels

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A question whose answer is looked at number by number."""

    name: str
    question: str
    images: tuple[npt.NDArray[np.uint8], ...] = ()  # each [height, width, 3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the services made of a probe; T tokens of a prompt of S.

    Arrays: input_ids int32 [S], tokens int32 [T], logits float32 [T, vocab].
    """

    input_ids: npt.NDArray[np.int32]
    tokens: npt.NDArray[np.int32]
    logits: Logits


def probes() -> list[Probe]:
    """Text alone, then one and several drawn images, the same in every run."""
    images = tuple(_drawn(index, *size) for index, size in enumerate(IMAGE_SIZES))
    return [
        Probe(name="text", question="Name three colours."),
        Probe(name="one image", question="What is in the image?", images=images[:1]),
        Probe(name="other image", question="What is in the image?", images=images[1:]),
        Probe(name="two images", question="What differs between them?", images=images),
    ]


def _drawn(seed: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin((rows * a + columns * b) / 17.0) for a, b in ((seed + 1, 2), (3, seed), (1, 1))]
    return ((np.stack(waves, axis=-1) + 1.0) * 127.5).astype(np.uint8)


def read(client: ChatClient, probe: Probe, special: SpecialTokens) -> Reading:
    """Asks a probe greedily, with logits, past every end-of-sequence token.

    Raises:
        CommandError: the answer held no token.
        ServiceError: the gateway refused.
    """
    conversation = Conversation()
    conversation.ask(probe.question, [_png(image) for image in probe.images])
    request = gateway_pb2.ChatRequest(
        messages=conversation.messages,
        sampling_params=decoder_pb2.SamplingParams(temperature=0.0, repetition_penalty=1.0),
        stop_conditions=decoder_pb2.StopConditions(max_tokens=TOKENS, ignore_eos=True),
        report_options=decoder_pb2.ReportOptions(logits=True),
    )
    tokens: list[int] = []
    logits: list[Logits] = []
    for chunk in client.complete(request):
        tokens.extend(chunk.token_ids)
        if chunk.token_ids:
            shape = (len(chunk.token_ids), None)
            logits.append(tensors.float32_from_proto(chunk.logits, field="logits", shape=shape))
    if not tokens:
        raise CommandError(f"{probe.name}: the answer held no token")
    kept = _until_placeholder(tokens, special)
    prompt = client.prepare(gateway_pb2.PrepareRequest(messages=conversation.messages))
    return Reading(
        input_ids=np.asarray(prompt.input_ids, dtype=np.int32),
        tokens=np.asarray(tokens[:kept], dtype=np.int32),
        logits=np.concatenate(logits)[:kept],
    )


def _until_placeholder(tokens: list[int], special: SpecialTokens) -> int:
    """How many tokens to keep.

    A random model may answer with a placeholder; transformers would look for its image in all
    that follows.
    """
    for index, token in enumerate(tokens):
        if token in (special.image, special.video):
            return index + 1
    return len(tokens)


def _png(image: npt.NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return stream.getvalue()
