"""What another node replaced is not shown as it was; what is read from the file each time is shown on."""

from __future__ import annotations

import pytest

from plugins.replaced import OWN_S, Replaced

SERIES = "/dicom-web/studies/1.2/series"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def replaced(clock: Clock) -> Replaced:
    return Replaced(clock)


@pytest.mark.parametrize(
    ("path", "is_shown"),
    [
        (SERIES, True),
        (f"{SERIES}/1.3/metadata", True),
        (f"{SERIES}/1.3/instances/1.4/frames/1", True),
        (f"{SERIES}/1.3/instances/1.4/rendered", False),
        (f"{SERIES}/1.3/thumbnail", False),
        (f"{SERIES}/1.3/instances/1.4/frames/1/rendered", False),
        ("/studies/7c2c1d0a/archive", True),
        ("/instances/7c2c1d0a/file", True),
        ("/instances/7c2c1d0a/preview", False),
        ("/instances/7c2c1d0a/frames/0/raw", False),
        ("/instances/7c2c1d0a/tags", False),
        ("/wado", False),
        ("/web-viewer/series/7c2c1d0a", False),
        ("/web-viewer/instances/jpeg95-7c2c1d0a_0", False),
    ],
)
def test_what_this_node_may_have_kept_of_a_study_that_it_showed_is_refused(
    replaced: Replaced, path: str, is_shown: bool
) -> None:
    assert replaced.may_show("1.2", path)
    replaced.deleted("1.2", ["i1", "i2"])
    assert replaced.may_show("1.2", path) is is_shown


def test_of_what_it_never_showed_it_has_kept_nothing(replaced: Replaced) -> None:
    assert replaced.may_show("1.2", "/wado")
    replaced.deleted("1.9", ["i1"])
    assert replaced.may_show("1.9", "/wado")
    assert replaced.may_show("1.2", "/wado")


def test_what_it_deletes_itself_it_forgets(replaced: Replaced, clock: Clock) -> None:
    assert replaced.may_show("1.2", "/wado")
    replaced.deleted_here("i1")
    replaced.deleted("1.2", ["i1"])  # the journal tells of the same deletion, a little later
    assert replaced.may_show("1.2", "/wado")
    replaced.deleted("1.2", ["i1", "i2"])  # of i2 another node did it
    assert not replaced.may_show("1.2", "/wado")
    replaced.deleted_here("i1")
    assert not replaced.may_show("1.2", "/wado")
    replaced.deleted_here("i2")
    assert replaced.may_show("1.2", "/wado")
    # It came again, was shown, and much later another node deleted it.
    clock.now += OWN_S + 1
    replaced.deleted("1.2", ["i2"])
    assert not replaced.may_show("1.2", "/wado")
