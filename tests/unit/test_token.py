"""The token that a command is given in a file."""

from pathlib import Path

import pytest

from core.errors import FleetError
from operations import token


def test_a_token_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc.def-_1\n")
    assert token.headers(token.read(tmp_path / "token")) == {"authorization": "Bearer abc.def-_1"}
    assert token.headers(token.read(None)) == {}


@pytest.mark.parametrize("content", [b"", b"\n", b"one two", b"one\ntwo", "schl\u00fcssel".encode(), b"\xff\xfe"])
def test_what_is_no_token_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(FleetError, match="--token-file: ") as told:
        token.read(tmp_path / "token")
    assert "one" not in str(told.value).replace("one token in one line", "")


def test_without_a_token_a_fleet_that_asks_for_one_is_not_called() -> None:
    asks = {"endpoints": {"authentication": {"kind": "jwt"}}}
    with pytest.raises(FleetError, match="require authentication") as told:
        token.require(asks, "")
    assert told.value.hint == "--token-file FILE"
    token.require(asks, "abc")
    token.require({"endpoints": {"authentication": {"kind": "none"}}}, "")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=r"--token-file: cannot be read: .*no-file"):
        token.read(tmp_path / "no-file")
