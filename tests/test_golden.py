from __future__ import annotations

from pathlib import Path

import pytest
from golden import Golden


def test_a_golden_file_is_written_once_then_compared_whole(tmp_path: Path) -> None:
    Golden(update=True, folder=tmp_path)("a/b.txt", "one\ntwo\n")
    compare = Golden(update=False, folder=tmp_path)
    compare("a/b.txt", "one\ntwo\n")
    with pytest.raises(AssertionError, match="differs"):
        compare("a/b.txt", "one\ntwo")
    with pytest.raises(AssertionError, match="no golden file"):
        compare("a/c.txt", "one")
