"""How a decoder process begins and ends, in an environment without torch and transformers."""

import asyncio
import shutil
import signal
import socket
from pathlib import Path

import grpc
import pytest

from protos.bundle.manifest import Bundle
from protos.tandem.v1 import decoder_pb2
from protos.wire.errors import ServiceError
from tests.e2e.decoder_client import (
    WriteRaced,
    connected,
    make_features,
    make_start,
    to_chunks,
    until,
)
from tests.e2e.decoder_environment import lone_decoder
from tests.support.bundles import bundle as make_bundle


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(make_bundle("tied", "fp32"))


def failed_start(decoder_python: Path, bundle: Path, log: Path, *flags: str) -> str:
    code, text = lone_decoder(decoder_python, bundle, log, *flags).run_to_end()
    assert code == 2, text
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if line.startswith("decoder_service: ")]
    assert len(lines) == 1 and text.splitlines()[-1] == lines[0]
    return lines[0]


def test_a_taken_port_ends_the_process_with_one_line(
    decoder_python: Path, bundle: Bundle, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = failed_start(decoder_python, bundle.path, tmp_path / "log", f"--port={port}")
    assert str(port) in line


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("decoder/model.onnx", "flip"),
        ("decoder/model.onnx", "remove"),
        ("decoder/model.onnx.data", "truncate"),
        ("decoder/embeddings.bin", "truncate"),
        ("tandem.json", "flip"),
        ("tandem.json", "remove"),
    ],
)
def test_a_damaged_bundle_ends_the_process_with_one_line(
    decoder_python: Path, bundle: Bundle, tmp_path: Path, name: str, damage: str
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle.path, copy)
    file = copy / name
    data = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    elif damage == "truncate":
        file.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)
    assert Path(name).name in failed_start(decoder_python, copy, tmp_path / "log", "--port=0")


def test_only_the_decoders_part_of_a_bundle_is_needed(
    decoder_python: Path, bundle: Bundle, tmp_path: Path
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle.path, copy)
    shutil.rmtree(copy / "vision")
    shutil.rmtree(copy / "processor")
    with lone_decoder(decoder_python, copy, tmp_path / "log") as process:
        assert process.port > 0


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--max-sequences=0", "max_sequences"),
        ("--max-context=1000000", "max_context"),
        ("--kv-memory-mib=x", "kv_memory_mib"),
        ("--prot=1", "--prot"),
        ("--port=70000", "port"),
    ],
)
def test_a_wrong_setting_ends_the_process_with_one_line(
    decoder_python: Path, bundle: Bundle, tmp_path: Path, flag: str, named: str
) -> None:
    assert named in failed_start(decoder_python, bundle.path, tmp_path / "log", flag)


def test_settings_that_do_not_fit_the_memory_are_refused(
    decoder_python: Path, bundle: Bundle, tmp_path: Path
) -> None:
    flags = ("--kv-memory-mib=1", "--max-sequences=16", "--max-context=4096")
    assert "kv_memory_mib" in failed_start(decoder_python, bundle.path, tmp_path / "log", *flags)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_streams_end_refuses_new_ones_and_exits_with_zero(
    decoder_python: Path, bundle: Bundle, tmp_path: Path, number: int
) -> None:
    start = make_start(bundle.manifest, "last", spans=[(4, 7)], max_tokens=12)
    with lone_decoder(decoder_python, bundle.path, tmp_path / "log") as process:
        async with connected(process.port) as client:
            call = client.open()
            await call.write(decoder_pb2.GenerateRequest(start=start))
            await call.read()
            process.process.send_signal(number)

            async def refuses() -> bool:
                try:
                    await client.generate(make_start(bundle.manifest, "late"))
                except ServiceError as error:
                    return error.kind.code is grpc.StatusCode.UNAVAILABLE
                except WriteRaced:  # refused before all was written: gRPC lost with what
                    pass
                return False

            await until(refuses)
            for message in to_chunks(make_features(bundle.manifest, 7)):
                await call.write(message)
            await call.done_writing()
            while (response := await call.read()) is not grpc.aio.EOF:
                last = response
        assert last.completion.completion_tokens == 12
        assert await asyncio.to_thread(process.process.wait, 30) == 0
        assert "Traceback" not in process.log.read_text()
