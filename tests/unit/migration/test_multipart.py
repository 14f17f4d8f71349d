"""Multipart bodies as servers send them, well and badly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from migration import multipart

_TYPE = 'multipart/related; type="application/dicom"; boundary="b-1"'
#: Bodies that hold what looks like an end.
_BODIES = [b"first\r\n--b-", b"", b"\r\n\r\n--b\r\nsecond", bytes(range(256)) * 20]


def written(lengths: list[int | None], preamble: bytes = b"") -> bytes:
    out = preamble
    for body, length in zip(_BODIES, lengths, strict=True):
        said = b"" if length is None else b"Content-Length: %d\r\n" % length
        out += b"\r\n--b-1\r\nContent-Type: application/dicom\r\n" + said + b"\r\n" + body
    return out + b"\r\n--b-1--\r\nepilogue"


def in_pieces(whole: bytes, size: int) -> Iterator[bytes]:
    return (whole[n : n + size] for n in range(0, len(whole), size))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100_000])
@pytest.mark.parametrize("begin", [b"", b"a preamble"])
@pytest.mark.parametrize("is_said", [True, False])
def test_parts_are_the_bodies_wherever_the_pieces_are_cut(size: int, begin: bytes, is_said: bool) -> None:
    lengths = [len(body) if is_said else None for body in _BODIES]
    whole = written(lengths, begin).removeprefix(b"\r\n")
    assert list(multipart.parts(in_pieces(whole, size), _TYPE)) == _BODIES


@pytest.mark.parametrize("wrong", [[1, 0, 2, 3], [14, 40, 1, 10_000_000]])
def test_a_length_that_is_wrong_loses_nothing(wrong: list[int | None]) -> None:
    assert list(multipart.parts(in_pieces(written(wrong), 10), _TYPE)) == _BODIES


def test_a_body_that_ends_too_early_is_no_part() -> None:
    given = multipart.parts(in_pieces(written([None] * 4)[:-40], 10), _TYPE)
    assert [next(given) for _ in range(3)] == _BODIES[:3]
    with pytest.raises(multipart.Broken, match="ends before its last boundary"):
        next(given)


def test_without_a_boundary_nothing_is_guessed() -> None:
    with pytest.raises(multipart.Broken, match="names no boundary"):
        list(multipart.parts(iter([b"x"]), "multipart/related"))


def test_a_single_object_needs_no_parts() -> None:
    assert list(multipart.parts(iter([b"DI", b"CM"]), "application/dicom; transfer-syntax=1.2")) == [b"DICM"]
