"""Writes a text checkpoint as an OpenVINO model, INT4_SYM in groups of 128; runs in OpenVINO's
own environment.

    python -m tests.bench.peers.to_openvino CHECKPOINT FOLDER

All layers are compressed, the head as well: a head in 8 bits would read a tenth more per token.
"""

import shutil
import sys
from pathlib import Path

import nncf  # type: ignore[import-not-found]
import openvino  # type: ignore[import-not-found]
from optimum.exporters.openvino import (  # type: ignore[import-not-found]
    main_export,
)
from optimum.intel import OVConfig  # type: ignore[import-not-found]

GROUP = 128
MODEL = "openvino_model"


def main() -> None:
    """Exports with float16 weights first, then compresses."""
    checkpoint, target = Path(sys.argv[1]), Path(sys.argv[2])
    plain = target.with_name(target.name + ".fp16")
    main_export(
        model_name_or_path=str(checkpoint),
        output=str(plain),
        task="text-generation-with-past",
        ov_config=OVConfig(dtype="fp16"),
        convert_tokenizer=True,
        library_name="transformers",
    )
    target.mkdir(parents=True, exist_ok=True)
    model = openvino.Core().read_model(plain / f"{MODEL}.xml")
    model = nncf.compress_weights(
        model,
        mode=nncf.CompressWeightsMode.INT4_SYM,
        ratio=1.0,
        group_size=GROUP,
        all_layers=True,
    )
    openvino.save_model(model, target / f"{MODEL}.xml", compress_to_fp16=True)
    for file in plain.iterdir():
        if not file.name.startswith(MODEL):
            shutil.copy(file, target)
    shutil.rmtree(plain)


if __name__ == "__main__":
    main()
