"""Adds portable graphs whose KV cache is int8 to a bundle: same weights, a quarter of the cache.

    python -m deploy.export.int8_cache BUNDLE

`GroupQueryAttention` stores keys and values as int8 with one constant scale per channel. The scales
come from running text through the bundle's own graph. A rotary embedding turns pairs of a key's
channels into each other as positions grow, so both get the pair's largest length: what holds for
short calibration prompts then holds at every position.

The new graphs are small files that name the weights of the old ones. The command changes the
manifest and so the bundle's digest: run it before the bundle is copied to other machines.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from decoder_service.cache.kv_cache import KvCache
from decoder_service.model.batch import PrefillLane
from decoder_service.model.embeddings import EmbeddingTable
from decoder_service.model.runner import make_runner
from decoder_service.model.sessions import open_graph
from deploy.export.manifest import entries_of
from protos.bundle.manifest import MANIFEST_NAME, Bundle, BundleError, DecoderGraph

FloatArray = npt.NDArray[np.float32]

TOKENS = 512
CHUNK = 128
# Values beyond what was seen are cut off; a little room costs less precision than that.
HEADROOM = 1.25
LEVELS = 127

TEXT = """The quick brown fox jumps over the lazy dog, and 1,234 people watched it on 5 May 2019.
Q: Which city lies on the river Rhine? A: Cologne; it has about 1.1 million inhabitants.
def area(width: float, height: float) -> float:\n    return width * height  # square metres
{"name": "Ada", "born": 1815, "fields": ["mathematics", "computing"], "alive": false}
The image shows two red circles left of a blue square. How many shapes are there? Three.
Photosynthesis turns light, water and carbon dioxide into sugar; the Calvin cycle needs no light.
El veloz murciélago comía feliz cardillo. Voix ambiguë d'un cœur qui préfère les jattes de kiwis.
Die Würde des Menschen ist unantastbar. Съешь же ещё этих мягких французских булок.
你好，世界！今天天气很好。いろはにほへと ちりぬるを。다람쥐 헌 쳇바퀴에 타고파. الحياة جميلة.
Total: $3,141.59 + 20% = $3,769.91. See https://example.org/a?b=c&d=e#f or write to me@example.org.
SELECT name, COUNT(*) FROM orders WHERE total > 100 GROUP BY name ORDER BY 2 DESC LIMIT 10;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerScales:
    """What one step of int8 stands for, float32 [kv_heads * head_dim] each."""

    key: FloatArray
    value: FloatArray


def add_graphs(root: Path) -> None:
    """Writes an int8 sibling of every portable graph for CPUs and names them in the manifest.

    Args:
        root: A bundle with its manifest; it may still lie in a partial folder.

    Raises:
        BundleError: the bundle is missing or damaged.
    """
    bundle = Bundle.open(root)
    manifest = bundle.manifest
    kept = [graph for graph in manifest.graphs if graph.kv_dtype != "int8"]
    graphs = [graph for graph in kept if graph.kernels == "onnxruntime"]
    if manifest.graph.execution_provider != "cpu":
        return
    scales = calibrate(bundle)
    made = [_write(root, graph, scales) for graph in graphs]
    files = entries_of(root, [graph.file for graph in made])
    changed = replace(manifest, graphs=(*kept, *made), files={**manifest.files, **files})
    partial = root / f"{MANIFEST_NAME}.partial"
    partial.write_text(changed.to_json(), encoding="utf-8")
    partial.replace(root / MANIFEST_NAME)


def calibrate(bundle: Bundle) -> list[LayerScales]:
    """Scales of every layer, from the keys and values of text."""
    text = bundle.manifest.text
    ids = _token_ids(bundle)
    cache = KvCache(
        layer_count=text.num_hidden_layers,
        slot_count=1,
        head_count=text.num_key_value_heads,
        max_length=len(ids),
        head_dim=text.head_dim,
    )
    session = open_graph(bundle, threads=0, kernels="onnxruntime", kv_dtype="float32")
    runner, table = make_runner(session, bundle, cache), EmbeddingTable.open(bundle)
    for past in range(0, len(ids), CHUNK):
        part = ids[past : past + CHUNK]
        positions = np.arange(past, past + len(part), dtype=np.int32)
        lane = PrefillLane(
            slot=0,
            past=past,
            embeds=table.rows(part),
            position_ids=np.tile(positions, (3, 1)),
            deepstack=None,
            logit_rows=np.array([], np.int64),
        )
        runner.run(lane, None)
    return [
        LayerScales(
            key=_scales(_pair_lengths(layer.key[0].astype(np.float32))),
            value=_scales(np.abs(layer.value[0].astype(np.float32))),
        )
        for layer in cache.layers
    ]


def _token_ids(bundle: Bundle) -> npt.NDArray[np.int64]:
    from transformers import PreTrainedTokenizerFast

    file = bundle.path / "processor" / "tokenizer.json"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file))
    ids = np.array(tokenizer.encode(TEXT, add_special_tokens=False), np.int64)
    limit = min(TOKENS, bundle.manifest.text.max_position_embeddings)
    return np.resize(ids[:limit], limit)  # repeated where the text is short


def _pair_lengths(keys: FloatArray) -> FloatArray:
    """The length of each rotating pair (i, i + half), for both of its channels."""
    half = keys.shape[-1] // 2
    lengths = np.hypot(keys[..., :half], keys[..., half:])
    return np.concatenate([lengths, lengths], axis=-1)


def _scales(sizes: FloatArray) -> FloatArray:
    """From sizes [heads, tokens, dim]; a channel that is always zero gets any scale."""
    most = sizes.max(axis=1).reshape(-1)
    scales: FloatArray = np.where(most > 0, most * (HEADROOM / LEVELS), 1).astype(np.float32)
    return scales


def _write(root: Path, graph: DecoderGraph, scales: Sequence[LayerScales]) -> DecoderGraph:
    import onnx

    model = onnx.load(root / graph.file, load_external_data=False)
    quantize(model, scales)
    file = int8_name(graph.file)
    (root / file).write_bytes(model.SerializeToString())
    return replace(graph, file=file, kv_dtype="int8")


def int8_name(file: str) -> str:
    """The int8 sibling's name of a graph's file."""
    return file.removesuffix(".onnx") + ".int8kv.onnx"


def quantize(model: Any, scales: Sequence[LayerScales]) -> None:
    """Makes every attention of an `onnx.ModelProto` keep its cache in int8, in place."""
    from onnx import TensorProto, helper, numpy_helper

    for layer, pair in enumerate(scales):
        for side in ("key", "value"):
            tensor = numpy_helper.from_array(getattr(pair, side), f"kv_scale.{layer}.{side}")
            model.graph.initializer.append(tensor)
    for node in model.graph.node:
        if node.op_type != "GroupQueryAttention":
            continue
        layer = int(node.input[3].split(".")[-2])
        node.input.extend([""] * (12 - len(node.input)))
        node.input.extend([f"kv_scale.{layer}.key", f"kv_scale.{layer}.value"])
        for name, value in (
            ("k_quant_type", "PER_CHANNEL"),
            ("v_quant_type", "PER_CHANNEL"),
            ("kv_cache_bit_width", 8),
        ):
            node.attribute.append(helper.make_attribute(name, value))
    for value in (*model.graph.input, *model.graph.output):
        if "past_key_values." in value.name or "present." in value.name:
            value.type.tensor_type.elem_type = TensorProto.INT8


def scales_of(model: Any) -> list[LayerScales]:
    """The scales in an int8 graph."""
    from onnx import numpy_helper

    found = {tensor.name: tensor for tensor in model.graph.initializer}

    def layers() -> Iterator[LayerScales]:
        layer = 0
        while f"kv_scale.{layer}.key" in found:
            key, value = (found[f"kv_scale.{layer}.{side}"] for side in ("key", "value"))
            yield LayerScales(key=numpy_helper.to_array(key), value=numpy_helper.to_array(value))
            layer += 1

    return list(layers())


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.export.int8_cache")
    parser.add_argument("bundle", type=Path, help="folder of the bundle")
    try:
        add_graphs(parser.parse_args(argv).bundle)
    except BundleError as error:
        sys.stderr.write(f"int8_cache: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
