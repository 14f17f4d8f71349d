"""A gateway whose database has no room left, on a real small disk: nothing is acknowledged that isn't committed."""

from __future__ import annotations

from pathlib import Path

from pydicom.uid import generate_uid

from tests.gateway_alone import a_gateway
from tests.integration.test_gateway_hl7_in import SETTINGS, patient
from tests.integration.test_gateway_modalities import MODALITIES, association, begin, create
from tests.small_disk import as_root, fill, small_disk
from zambezi import audit
from zambezi.database.tables import Message, PerformedStep


@as_root
def test_without_room_neither_message_nor_exam_progress_is_acknowledged_and_both_are_once_there_is(tmp_path: Path):
    with small_disk(tmp_path / "small", 16), a_gateway(tmp_path / "small", SETTINGS, MODALITIES) as alone:
        assert alone.line().ask(patient("d0")).get("MSA-1") == "AA"
        filler = fill(alone.environment.home / "filler")
        answers, steps = {}, {}
        # Pages that the database has already may take a few more; then there is no room for anything.
        for n in range(40):
            line, name = alone.line(), f"n{n}"
            line.send(patient(name))
            answers[name] = line.answer()
            line.close()
        with association(alone) as ct:
            for _ in range(3):
                uid = generate_uid()
                steps[uid] = create(ct, uid, begin(None))
        assert list(answers.values())[-5:] == [None] * 5
        assert set(steps.values()) == {0x0110}, "processing failure: the modality keeps it"
        filler.unlink()
        acknowledged = {name for name, answer in answers.items() if answer is not None}
        committed = {row.control_id.removeprefix("CTL1-") for row in alone.all(Message, Message.peer == "his")}
        assert committed == acknowledged | {"d0"}
        assert alone.all(PerformedStep, PerformedStep.sop_uid.in_(steps)) == []
        for name in answers:
            assert alone.line().ask(patient(name)).get("MSA-1") == "AA"
        with association(alone) as ct:
            assert [create(ct, uid, begin(None)) for uid in steps] == [0, 0, 0]
        assert len(alone.all(Message, Message.peer == "his")) == len(answers) + 1, "each once"
        with alone.sessions() as session:
            assert audit.verify(session) == []
