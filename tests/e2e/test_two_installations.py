"""Two installations run side by side: what differs is in `ZAMBEZI_*` alone."""

from __future__ import annotations

from demo import images
from demo.hospital import Hospital
from tests import invariants
from tests.running import a_hospital
from tests.senders import Sender, small_study


def test_a_second_installation_starts_beside_the_first_and_shares_nothing(hospital: Hospital):
    with a_hospital() as other:
        sender = Sender(other.environment.ports.dicom)
        sender.send(small_study("OTHER1", 2, images.uid("side", str(other.environment.home))))
        invariants.stored_once(other, sender.succeeded)
        for sop_uid in sender.succeeded:
            assert hospital.orthanc().find("Instance", {"SOPInstanceUID": sop_uid}) == []
        assert other.orthanc().system()["DicomAet"] == hospital.orthanc().system()["DicomAet"] == "ZAMBEZI"
