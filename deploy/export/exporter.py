"""Runs the stages of an export: processor, vision tower, embedding table, decoder, manifest."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deploy.export import libraries, manifest, needs, quality
from deploy.export.checkpoint import processor
from deploy.export.checkpoint.checkpoint import Checkpoint
from deploy.export.checkpoint.hub import Located
from deploy.export.decoder import embedding_table, graphs, kernel_graphs
from deploy.export.options import ExportOptions
from deploy.export.partial import PartialBundle, key_of
from deploy.export.progress import Advance, ExportProgress
from deploy.export.vision import weights as vision_weights
from deploy.export.vision import writer as tower_writer

Work = Callable[[Advance], None]


def export(
    located: Located, target: Path, options: ExportOptions, progress: ExportProgress
) -> Path:
    """Makes the bundle `target` out of a checkpoint.

    Args:
        located: The checkpoint's folder and what to call it.
        target: The bundle, which must not exist. Work happens in `<target>.partial`, which a
            killed export leaves behind and the next one with the same inputs continues.
        options: What kind of graph to write.
        progress: Where to show it.

    Returns:
        `target`.

    Raises:
        ExportError: options, checkpoint or target are refused, or the disk is too small.
    """
    options.check()
    checkpoint = Checkpoint.open(located.path)
    with PartialBundle(target, _key(checkpoint, located, options)) as partial:
        model = graphs.skeleton(checkpoint)
        checkpoint.require(graphs.required_shapes(model))
        needed = needs.need(checkpoint, options)
        progress.note(needs.described(needed, partial.path, there=partial.size()))
        progress.expect(needed.work_bytes)
        stages = _Stages(checkpoint, partial, progress)
        stages.run_processor()
        stages.run_vision()
        stages.run_embeddings()
        stages.run_decoder(model, options)
        if graphs.has_kernel_graphs(checkpoint, options):
            stages.run_kernel_graphs()
        report = quality.report(partial.path, checkpoint, model, options, progress)
        manifest.write(
            partial.path,
            checkpoint,
            options,
            model_id=located.model_id,
            revision=located.revision,
            files=partial.files(),
            quality=report,
        )
        partial.publish()
    return target


class _Stages:
    """Each stage writes its files unless an earlier, killed export has done so."""

    def __init__(
        self, checkpoint: Checkpoint, partial: PartialBundle, progress: ExportProgress
    ) -> None:
        self._checkpoint = checkpoint
        self._partial = partial
        self._progress = progress

    def _run(self, name: str, names: list[str], total: int, work: Work) -> None:
        if self._partial.finished(name):
            self._progress.note(f"{name}: done by an earlier export")
            self._progress.skip(total)
            return
        with self._progress.stage(name, total) as advance:
            work(advance)
            self._partial.finish(name, manifest.entries_of(self._partial.path, names))

    def run_processor(self) -> None:
        files = self._checkpoint.processor_files
        folder = self._partial.path / "processor"

        def work(advance: Advance) -> None:
            processor.write(files, folder)
            advance(sum(len(data) for data in files.values()))

        names = [f"processor/{name}" for name in files]
        self._run("processor", names, sum(len(data) for data in files.values()), work)

    def run_vision(self) -> None:
        tensors = self._checkpoint.with_prefix(self._checkpoint.family.tensors.vision)
        config: Mapping[str, Any] = self._checkpoint.config["vision_config"]
        folder = self._partial.path / "vision"
        names = ["vision/config.json", "vision/model.safetensors"]
        total = sum(tensor.size for tensor in tensors.values())
        self._run(
            "vision", names, total, lambda go: vision_weights.write(tensors, config, folder, go)
        )
        self._run(
            "tower",
            [f"vision/{name}" for name in tower_writer.NAMES],
            tower_writer.expected_bytes(tensors),
            lambda go: tower_writer.write(tensors, config, folder, go),
        )

    def run_embeddings(self) -> None:
        table = self._checkpoint.embeddings
        folder = self._partial.path / "decoder"
        names = [f"decoder/{embedding_table.FILE_NAME}"]
        self._run(
            "embeddings", names, table.size, lambda go: embedding_table.write(table, folder, go)
        )

    def run_decoder(self, model: Any, options: ExportOptions) -> None:
        checkpoint, folder = self._checkpoint, self._partial.path / "decoder"
        self._run(
            "decoder",
            [f"decoder/{name}" for name in graphs.NAMES],
            graphs.expected_bytes(checkpoint, options),
            lambda go: graphs.write(checkpoint, model, options, folder, go),
        )

    def run_kernel_graphs(self) -> None:
        folder = self._partial.path / "decoder"
        self._run(
            "kernels",
            [f"decoder/{name}" for name in kernel_graphs.NAMES],
            graphs.expected_kernel_bytes(folder),
            lambda go: graphs.write_kernel_graphs(folder, go),
        )


def _key(checkpoint: Checkpoint, located: Located, options: ExportOptions) -> str:
    """Names the inputs: options, libraries, settings files, and weights by name, size and time."""
    settings = {
        name: hashlib.sha256(data).hexdigest() for name, data in checkpoint.processor_files.items()
    }
    files = sorted({tensor.file for tensor in checkpoint.tensors.values()})
    return key_of(
        {
            "model_id": located.model_id,
            "revision": located.revision,
            "options": dataclasses.asdict(options),
            "versions": libraries.versions(),
            "config": checkpoint.config,
            "settings": settings,
            "weights": [
                (file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files
            ],
        }
    )
