"""The file of `dlq export` is complete or absent, and never written through a link."""

import stat
from pathlib import Path

import pytest

from sahool_dlq.cli.export import _opened
from sahool_dlq.errors import QueryError


def test_a_raw_export_is_for_its_user_only_and_has_its_name_once_it_is_whole(
    tmp_path: Path,
) -> None:
    file = tmp_path / "raw.jsonl"
    with _opened(file, is_private=True) as opened:
        opened.write(b"{}\n")
        assert not file.exists()
    assert file.read_bytes() == b"{}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("is_private", [True, False])
def test_nothing_is_written_through_what_stands_in_its_place(
    tmp_path: Path, is_private: bool
) -> None:
    other, part = tmp_path / "other", tmp_path / "raw.jsonl.part"
    other.write_text("mine")
    part.symlink_to(other)
    with (
        pytest.raises(QueryError, match="is there already"),
        _opened(tmp_path / "raw.jsonl", is_private=is_private),
    ):
        pass
    assert other.read_text() == "mine"
    assert part.is_symlink()
