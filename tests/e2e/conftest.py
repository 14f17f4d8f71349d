from __future__ import annotations

import pytest

from demo.hospital import Hospital, Run, new_run
from zambezi import clock


@pytest.fixture(scope="session")
def run(hospital: Hospital) -> Run:
    """The identifiers of this test run's play."""
    return new_run(clock.now(), hospital.configuration().zambezi.site.zone)
