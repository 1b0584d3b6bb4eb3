"""The memory of this process, by Linux."""

import gc
import re
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc"
)


def peak_memory() -> int:
    """The most bytes in memory since the last call; counting begins anew."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return int(found.group(1)) * 1024


def resident_memory() -> int:
    """Bytes in memory now."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
