"""The verdict."""
from pathlib import Path
from tests.soak.samples import read
from tests.soak.trend import trends


def verdict(folder: Path) -> int:
    for t in trends(read(folder / "samples.jsonl")):
        print(t.role, t.quantity, round(t.first, 2), round(t.last, 2), round(t.slope, 2), t.is_flat)
    return 0
