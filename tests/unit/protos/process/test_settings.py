"""Settings come from flags, then environment, then defaults, and name what is wrong."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from protos.process import settings
from protos.process.settings import SettingError, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    bundle: str = setting("folder of the bundle")
    port: int = setting("port to listen on", default=50052)
    threads: int | None = setting("compute threads; none: all cores", default=None)
    ratio: float = setting("a share", default=0.5)
    allow_logits: bool = setting("answer with raw logits", default=False)
    depth: int | None = setting("how deep", default=None, least=1, most=9)
    pause_s: float = setting("how long", default=1.0, above=0)
    kernels: str = setting("whose kernels", default="auto", choices=("auto", "own", "none"))
    key: str | None = setting("who may ask", default=None, secret=True)

    def __post_init__(self) -> None:
        settings.check(self)


def load(argv: list[str], environ: dict[str, str] | None = None) -> Config:
    return settings.load(
        Config, program="decoder_service", prefix="DECODER", argv=argv, environ=environ or {}
    )


def test_flags_win_over_the_environment_which_wins_over_defaults() -> None:
    config = load(["--bundle=a", "--port", "7"], {"DECODER_PORT": "6", "DECODER_RATIO": "0.25"})
    assert config == Config(bundle="a", port=7, ratio=0.25)


def test_optional_values_take_none() -> None:
    assert load(["--bundle=a", "--threads=none"]).threads is None
    assert load(["--bundle=a", "--threads=2"]).threads == 2


@pytest.mark.parametrize(
    ("argv", "environ", "named"),
    [
        (["--bundle=a"], {"DECODER_PROT": "1"}, "DECODER_PROT"),
        (["--bundle=a", "--port=x"], {}, "port"),
        (["--bundle=a", "--allow-logits=maybe"], {}, "allow_logits"),
        (["--bundle=a", "--prot=1"], {}, "--prot"),
        (["--bundle=a", "--por=1"], {}, "--por"),
        ([], {}, "DECODER_BUNDLE"),
    ],
)
def test_a_wrong_setting_is_named(argv: list[str], environ: dict[str, str], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        load(argv, environ)


def test_other_services_environment_is_left_alone() -> None:
    assert load(["--bundle=a"], {"VISION_PORT": "x", "PATH": "y"}).port == 50052


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--depth=0", "depth is 0, expected at least 1"),
        ("--depth=10", "depth is 10, expected at most 9"),
        ("--pause-s=0", "pause_s is 0.0, expected more than 0"),
        ("--pause-s=nan", "pause_s is nan, expected more than 0"),
        ("--kernels=other", "kernels is 'other', expected auto, own or none"),
    ],
)
def test_a_value_out_of_its_range_is_refused_with_the_range(flag: str, message: str) -> None:
    with pytest.raises(SettingError, match=f"^{message}$"):
        load(["--bundle=a", flag])


def test_the_ends_of_a_range_and_unset_values_are_taken() -> None:
    assert load(["--bundle=a", "--depth=9", "--pause-s=0.001"]).depth == 9
    assert load(["--bundle=a", "--depth=none"]).depth is None


def test_secrets_are_not_shown() -> None:
    shown = settings.describe(load(["--bundle=a", "--key=swordfish"]))
    assert "swordfish" not in shown
    assert "key=***" in shown
    assert "bundle='a'" in shown


FILE = """
bundle = "of the file"
port = 5
ratio = 0.125
allow_logits = true
key = ["a", "b"]
"""


def file_of(folder: Path, text: str) -> str:
    (folder / "settings.toml").write_text(text)
    return str(folder / "settings.toml")


def test_a_file_comes_after_flags_and_environment_and_before_defaults(tmp_path: Path) -> None:
    file = file_of(tmp_path, FILE)
    config = load(["--config", file, "--port=7"], {"DECODER_RATIO": "0.25"})
    assert config == Config(
        bundle="of the file", port=7, ratio=0.25, allow_logits=True, key="a,b", depth=None
    )
    assert load([], {"DECODER_CONFIG": file}).port == 5
    other = file_of(tmp_path, FILE.replace("port = 5", "port = 4"))
    assert load(["--config", other], {"DECODER_CONFIG": "/nowhere"}).port == 4


def test_a_service_reads_its_own_section_of_a_file_of_several(tmp_path: Path) -> None:
    file = file_of(tmp_path, "[decoder]\nallow-logits = true\n[vision]\nreplicas = 2\n")
    assert load(["--bundle=a", f"--config={file}"]).allow_logits
    without = file_of(tmp_path, "[vision]\nport = 1\n")
    assert load(["--bundle=a", f"--config={without}"]).port == 50052


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("prot = 1", "prot is not a setting of decoder; did you mean port"),
        ("[decoder]\nprot = 1", "prot is not a setting of decoder; did you mean port"),
        ("[decodr]\nport = 1", "decodr is no section.*did you mean decoder"),
        ("port = 1\n[decoder]\n", "port is no section"),
        ("decoder = 1", "write \\[decoder\\]"),
        ("port = {a = 1}", "port is no section|port is a dict"),
        ("ratio = 1\nport = {a = 1}", "port is a dict"),
        ("port =", "is not TOML"),
        ("port = 'x'", "port must be of type int"),
        ("depth = 10", "depth is 10, expected at most 9"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(SettingError, match=named):
        load(["--bundle=a", "--config", file_of(tmp_path, text)])


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(SettingError, match="/nowhere/settings.toml: No such file"):
        load(["--bundle=a", "--config=/nowhere/settings.toml"])


@pytest.mark.parametrize(
    ("argv", "environ", "hint"),
    [
        (["--prot=1"], {}, "--prot is .*did you mean --port"),
        (["--allow-logit", "true"], {}, "did you mean --allow-logits"),
        ([], {"DECODER_PROT": "1"}, "did you mean DECODER_PORT"),
        (["--zzzzzz"], {}, "--zzzzzz is not a setting of this service$"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(
    argv: list[str], environ: dict[str, str], hint: str
) -> None:
    with pytest.raises(SettingError, match=hint):
        load(["--bundle=a", *argv], environ)
