"""The pictures of the manuals: `python -m tests.e2e.screenshots FOLDER`, against a running demo (`make demo`).

The demo's play leaves one exam. A worklist with one line says little, so a few more orders are entered through
the pages first, by people of the demo; a second call finds them.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Error, Page, sync_playwright
from sqlalchemy import select

from demo import images
from demo.hospital import PASSWORD, Hospital, wait_for
from demo.neighbours import Neighbours
from tests.conftest import ARGUMENTS, CHROMIUM
from zambezi.database.tables import Order, Study
from zambezi.environment import REPOSITORY, Environment

#: No picture in the manuals is larger, for readers on thin lines.
LARGEST_BYTES = 120_000
WIDE = (1280, 800)
#: Where the demo lies on this machine says nothing to a reader: a picture shows where a server has it.
ELSEWHERE = """home => document.querySelectorAll("code").forEach(
    one => { one.textContent = one.textContent.replace(home, "/srv/zambezi"); })"""


@dataclass(frozen=True)
class Wanted:
    """An order as it is entered at the reception; the first has images and a draft of a report."""

    patient_id: str
    family_name: str
    given_name: str
    birth_date: str
    sex: str
    modality: str
    procedure_text: str
    priority: str
    referring_physician: str
    clinical_information: str


WANTED = (
    Wanted("HCZ20418", "Macuácua", "Celeste Amélia", "1968-05-23", "F", "CT", "TC crânio-encefálica", "STAT",
           "Dra. Ngungunhane", "Queda de escada há duas horas, vómitos, Glasgow 14. Hemorragia?"),
    Wanted("HCZ18833", "Chissano", "Armando", "1991-11-02", "M", "CT", "TC torácica", "HIGH",
           "Dr. Mabunda", "Hemoptises há três dias. Tuberculose tratada em 2019."),
    Wanted("HCZ20977", "Moyo", "Tendai", "2019-01-15", "F", "CR", "Radiografia do tórax", "ROUTINE",
           "Dra. Ngungunhane", "Tosse e febre."),
    Wanted("HCZ11240", "Nhantumbo", "Graça", "1984-07-30", "F", "US", "Ecografia obstétrica", "ROUTINE",
           "Enf.ª Sitoe", "32 semanas."),
)  # fmt: skip

DRAFT = {
    "technique": "TC crânio-encefálica sem contraste, cortes axiais.",
    "findings": "Sem sinais de hemorragia intra ou extra-axial.\n"
    "Sulcos e ventrículos de dimensões normais para a idade. Linha média centrada.\n"
    "Sem traço de fractura nas janelas ósseas.",
    "impression": "Sem lesão traumática intracraniana visível.",
}


def main(folder: Path) -> None:
    """Prepare the demo's day, then take every picture."""
    environment = Environment.read({"ZAMBEZI_HOME": str(REPOSITORY / "data-demo"),
                                    "ZAMBEZI_CONFIG": str(REPOSITORY / "demo" / "config"), **os.environ})  # fmt: skip
    hospital = Hospital(environment, Neighbours.read(environment, os.environ))
    folder.mkdir(parents=True, exist_ok=True)
    order_id, study_uid = prepare(hospital)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for name, shot in pictures(hospital, browser, order_id, study_uid):
            size = save(shot, folder / f"{name}.png")
            print(f"{name}.png {size // 1000} KB", flush=True)
        browser.close()


def prepare(hospital: Hospital) -> tuple[int, str]:
    """Enter the orders of WANTED, with images and a draft for the first; its order's id and its Study UID."""
    reception = hospital.person("recepcao")
    for wanted in WANTED:
        if _order(hospital, wanted.patient_id) is None:
            page = f"/orders/new?patient_id={wanted.patient_id}"
            reception.submit(page, "procedure_text", **wanted.__dict__)
    first = WANTED[0]
    order = _order(hospital, first.patient_id)
    assert order is not None
    if _images(hospital, order.study_uid) == 0:
        exam = images.Exam(
            first.patient_id, f"{first.family_name}^{first.given_name}", first.birth_date.replace("-", ""), first.sex,
            order.accession_number, order.study_uid, order.scheduled_at[:10].replace("-", ""),
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as slices:
            hospital.ct.store(images.ct_slices(exam, 8, Path(slices)))
        wait_for("the images in the RIS", lambda: _images(hospital, order.study_uid) == 8)
    radiologist = hospital.person("radiologista")
    if "Linha média" not in radiologist.page(f"/studies/{order.study_uid}/report"):
        radiologist.submit(f"/studies/{order.study_uid}/report", "findings", "stay", **DRAFT)
    return order.id, order.study_uid


def pictures(hospital: Hospital, browser: Browser, order_id: int, study_uid: str) -> Iterator[tuple[str, bytes]]:
    """Every picture: its name and the PNG as the browser made it."""
    with signed_in(hospital, browser, "tecnico") as page:
        for name, path in (("worklist", "/"), ("order", f"/orders/{order_id}")):
            page.goto(path)
            yield name, page.screenshot()
    with signed_in(hospital, browser, "radiologista") as page:
        for name, path in (("study", ""), ("report", "/report"), ("report-sign", "/report/sign")):
            page.goto(f"/studies/{study_uid}{path}")
            yield name, page.screenshot()
        page.goto(f"/viewer?StudyInstanceUIDs={study_uid}")
        page.wait_for_selector("canvas", timeout=60_000)
        page.get_by_text("Confirm and hide").click()
        yield "ohif", with_pixels(page)
        page.goto(f"/studies/{study_uid}")
        with page.context.expect_page() as opened:
            page.locator("a[href*='/web-viewer/']").first.click()
        yield "web-viewer", with_pixels(opened.value)
    with signed_in(hospital, browser, "migracao") as page:
        page.goto("/migrations")
        page.locator("tbody a").first.click()
        page.wait_for_load_state()
        yield "migration", page.screenshot()
    with signed_in(hospital, browser, "admin") as page:
        for name, path in (("audit", "/audit"), ("deliveries", "/deliveries?state=all"), ("health", "/health")):
            page.goto(path)
            page.evaluate(ELSEWHERE, str(hospital.environment.home))
            yield name, page.screenshot()
    with signed_in(hospital, browser, "tecnico", "en") as page:
        page.goto("/")
        yield "worklist-en", page.screenshot()
    with signed_in(hospital, browser, "tecnico", size=(390, 780)) as page:
        page.goto("/")
        yield "worklist-phone", page.screenshot()


@contextmanager
def signed_in(
    hospital: Hospital, browser: Browser, login: str, language: str = "pt", size: tuple[int, int] = WIDE
) -> Iterator[Page]:
    """A page of somebody who has signed in and has chosen the language; Portuguese again afterwards."""
    context = browser.new_context(
        base_url=hospital.environment.front_url, viewport={"width": size[0], "height": size[1]}, locale="pt-PT"
    )
    page = context.new_page()
    page.goto("/session")
    page.fill("input[name=login]", login)
    page.fill("input[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector(".who")
    choose_language(page, language)
    yield page
    choose_language(page, "pt")
    context.close()


def choose_language(page: Page, language: str) -> None:
    """As a person does it, on the page of the account."""
    if page.locator("html").get_attribute("lang") != language:
        page.goto("/account")
        page.select_option("select[name=language]", language)
        page.locator("form[action='/account/language'] button").click()
        page.wait_for_load_state()


def with_pixels(page: Page) -> bytes:
    """The picture once the viewer shows the many greys of a slice in its middle, not one colour."""

    def look() -> bytes | None:
        try:
            shot = page.screenshot()
        except Error:
            return None  # a browser that renders without a graphics card refuses now and then
        picture = Image.open(io.BytesIO(shot)).convert("L")
        width, height = picture.size
        middle = picture.crop((width * 2 // 5, height // 3, width * 3 // 5, height * 2 // 3))
        return shot if sum(1 for count in middle.histogram() if count > 10) > 40 else None

    return wait_for("pixels in the viewer", look, 90)


def save(shot: bytes, file: Path) -> int:
    """Write the picture as large as fits into LARGEST_BYTES; its size."""
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    for share in (1, 0.75, 0.6, 0.5):
        out = io.BytesIO()
        smaller = picture.resize(
            (round(picture.width * share), round(picture.height * share)), Image.Resampling.LANCZOS
        )
        smaller.quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
        if out.tell() < LARGEST_BYTES:
            file.write_bytes(out.getvalue())
            return out.tell()
    raise SystemExit(f"{file.name} does not fit into {LARGEST_BYTES} bytes")


def _order(hospital: Hospital, patient_id: str) -> Order | None:
    with hospital.database().begin() as session:
        return session.scalars(select(Order).where(Order.patient.has(patient_id=patient_id))).first()


def _images(hospital: Hospital, study_uid: str) -> int:
    with hospital.database().begin() as session:
        found = session.scalars(select(Study.instances).where(Study.study_uid == study_uid)).first()
    return found or 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("python -m tests.e2e.screenshots FOLDER")
    main(Path(sys.argv[1]))
