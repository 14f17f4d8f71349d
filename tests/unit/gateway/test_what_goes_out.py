"""What goes out: bytes as they are stored, or compressed, changed and de-identified as a destination asks."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless

from gateway.transcoding import Transcoder
from tests.integration.archive_fixture import image, written
from tests.misbehaving import Receiver
from zambezi.database.tables import Pseudonym


def test_a_receiver_that_takes_implicit_vr_alone_gets_it(bench):
    one = bench(Receiver(syntaxes=("1.2.840.10008.1.2",)))
    with one.receiver.listening():
        assert one.attempt().state == "delivered"
    got = next(iter(one.receiver.has.values()))
    assert got.PatientName == "Teste^Ana"
    assert got.PixelData == bytes(64)


def test_what_is_compressed_isnt_unpacked_without_being_asked(bench):
    study = image().StudyInstanceUID
    images = [image(study) for _ in range(2)]
    images[0].file_meta.TransferSyntaxUID = JPEGLSLossless
    images[0].PixelData = encapsulate([b"abcd"])
    images[0]["PixelData"].is_undefined_length = True
    one = bench(Receiver(), images=images)
    with one.receiver.listening():
        row = one.attempt()
    assert JPEGLSLossless in row.outcome
    assert set(one.receiver.has) == {str(images[1].SOPInstanceUID)}


def test_bytes_go_out_as_they_are_stored(bench):
    one = bench(Receiver(), count=1)
    seen = []
    one.receiver.does = lambda event, number: seen.append(event.request.DataSet.getvalue())
    with one.receiver.listening():
        assert one.attempt().state == "delivered"
    file = one.shelf.files["id0"]
    assert file.endswith(seen[0])
    assert len(seen[0]) > len(file) - 400
    assert one.receiver.callers[0] == "ZAMBEZI_OUT"


@pytest.mark.parametrize(("transcode", "syntax"), [("jpeg-ls", JPEGLSLossless), ("jpeg-2000", JPEG2000Lossless)])
def test_images_go_out_compressed_without_loss_and_what_has_no_pixels_as_it_is(bench, transcode, syntax):
    study = image().StudyInstanceUID
    pixels = bytes(range(256)) * 16
    report = image(study)
    del report.PixelData
    images = [image(study, Rows=64, Columns=64, PixelData=pixels), report]
    one = bench(Receiver(syntaxes=(ExplicitVRLittleEndian, syntax)), images=images, transcode=transcode)
    with one.receiver.listening():
        assert one.attempt().state == "delivered"
    packed, whole = (one.receiver.has[str(image.SOPInstanceUID)] for image in images)
    assert (packed.file_meta.TransferSyntaxUID, whole.file_meta.TransferSyntaxUID) == (syntax, ExplicitVRLittleEndian)
    assert len(packed.PixelData) < 2048
    unpacked = Transcoder("uncompressed", one.home).transcoded(written(packed))
    assert dcmread(BytesIO(unpacked)).PixelData == pixels
    assert not list((one.home / "transcoding").iterdir())


def test_an_image_that_the_codec_cant_take_waits_for_a_person_and_keeps_no_other_back(bench):
    study = image().StudyInstanceUID
    images = [image(study, PixelData=bytes(6)), image(study, Rows=8, Columns=8)]
    one = bench(Receiver(syntaxes=(ExplicitVRLittleEndian, JPEGLSLossless)), images=images, transcode="jpeg-ls")
    with one.receiver.listening():
        row = one.attempt()
    assert "can't be transcoded" in row.outcome
    assert set(one.receiver.has) == {str(images[1].SOPInstanceUID)}


def test_an_image_that_is_malformed_waits_for_a_person_and_keeps_no_other_back(bench):
    one = bench(Receiver(), count=2, set_={"InstitutionName": "X"})
    file = one.shelf.files["id0"]
    at = file.find(b"LO", file.find(b"DICM") + 200)  # a length that reaches beyond the end
    one.shelf.files["id0"] = file[: at + 2] + b"\xfe\xff" + file[at + 4 :]
    with one.receiver.listening():
        row = one.attempt()
    assert (row.state, len(one.receiver.has)) == ("retrying", 1)
    assert "1 of 2 instances don't go" in row.outcome
    assert "it is cut off" in row.outcome


def test_attributes_are_set_and_removed_on_the_way_out_and_pixels_stay(bench):
    changes = {"set_": {"InstitutionName": "Clínica Central"}, "remove": ("PatientName",)}
    one = bench(Receiver(), count=1, **changes)
    with one.receiver.listening():
        assert one.attempt().state == "delivered"
    (got,) = one.receiver.has.values()
    assert got.InstitutionName == "Clínica Central"
    assert got.SpecificCharacterSet == "ISO_IR 192"
    assert "PatientName" not in got
    assert got.PixelData == bytes(64)


def test_a_deidentified_study_is_proven_under_its_new_uids_and_found_again_by_its_mapping(bench):
    from gateway.pseudonyms import Pseudonyms

    study = image().StudyInstanceUID
    images = [image(study, PatientID="NID-4711", StudyDescription="secret", InstanceNumber=n) for n in (1, 2)]
    one = bench(Receiver(), images=images, deidentify=True)
    one.sender = one.a_sender(Pseudonyms(one.made, one.name, lambda: one.now))
    with one.receiver.listening():
        assert one.attempt().state == "delivered"
    assert not set(one.receiver.has) & one.wanted
    for got in one.receiver.has.values():
        assert "NID-4711" not in str(got)
        assert "secret" not in str(got)
        assert got.PixelData == bytes(64)
    with one.made.begin() as session:
        kept = {row.pseudonym: row.original for row in session.query(Pseudonym).filter_by(destination=one.name)}
    assert kept == {str(got.PatientID): "NID-4711", str(got.StudyInstanceUID): str(study)}
