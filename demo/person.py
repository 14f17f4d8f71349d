"""Somebody at a browser: pages and forms through the front door, as HTML gives them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin

import requests

from zambezi.access.tokens import COOKIE


class PersonStuck(Exception):
    """The page was not there, refused, or had no form of the kind that was looked for."""


@dataclass
class Form:
    """A form on a page: where it goes, and its fields with what they hold."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []
        self._textarea = ""
        self._select = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(Form(given.get("action", ""), given.get("method", "get").lower()))
        if not self.found:
            return
        form, name = self.found[-1], given.get("name", "")
        if tag == "input" and name and given.get("type", "text") not in ("checkbox", "radio", "submit", "button"):
            form.fields[name] = given.get("value", "")
        elif (tag == "button" or (tag == "input" and given.get("type") == "submit")) and name:
            form.buttons.append((name, given.get("value", "")))
        elif tag == "textarea" and name:
            self._textarea = name
            form.fields[name] = ""
        elif tag == "select" and name:
            self._select = name
        elif tag == "option" and self._select and ("selected" in given or self._select not in form.fields):
            form.fields[self._select] = given.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._textarea = ""
        elif tag == "select":
            self._select = ""

    def handle_data(self, data: str) -> None:
        if self._textarea and self.found:
            self.found[-1].fields[self._textarea] += data


class Person:
    """One browser session at the front door `url`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._browser = requests.Session()
        self._browser.trust_env = False
        self._browser.headers["Accept-Language"] = "pt"

    @property
    def cookie(self) -> str:
        """The signed token that the browser carries, empty without one."""
        return str(self._browser.cookies.get(COOKIE) or "")

    def get(self, path: str) -> requests.Response:
        """Any GET; PersonStuck unless it is answered 200."""
        try:
            answer = self._browser.get(urljoin(self._url, path), timeout=60)
        except requests.RequestException as error:
            raise PersonStuck(f"GET {path}: {type(error).__name__}") from error
        if answer.status_code != 200:
            raise PersonStuck(f"GET {path}: HTTP {answer.status_code}")
        return answer

    def page(self, path: str) -> str:
        """A page's HTML."""
        return self.get(path).text

    def submit(self, path: str, having: str, button: str = "", **values: str) -> requests.Response:
        """Fill in the form on page `path` that has the field (or goes to the address ending in) `having`; send it."""
        page = self.get(path)
        for form in _parsed(page.text):
            if having in form.fields or form.action.split("?")[0].endswith(having):
                data = {**form.fields, **values}
                if button:
                    data |= {name: value for name, value in form.buttons if button in (name, value)}
                target = urljoin(page.url, form.action or page.url)
                try:
                    answer = self._browser.post(target, data=data, headers={"Referer": page.url}, timeout=60)
                except requests.RequestException as error:
                    raise PersonStuck(f"POST {target}: {type(error).__name__}") from error
                if answer.status_code >= 400:
                    raise PersonStuck(f"POST {target}: HTTP {answer.status_code}")
                return answer
        raise PersonStuck(f"page {path} has no form with {having}")

    def sign_in(self, login: str, password: str) -> None:
        """Through the sign-in page."""
        self._browser.cookies.clear()
        self.submit("/session", having="password", login=login, password=password)
        if "/session" in self.get("/account").url:
            raise PersonStuck(f"{login} could not sign in")

    def open_study(self, study_uid: str) -> None:
        """What a viewer asks for first: the study's metadata and one frame's pixels, by DICOMweb and WADO."""
        metadata = self.get(f"/dicom-web/studies/{study_uid}/metadata").json()
        image = next(instance for instance in metadata if "00280010" in instance)
        series, instance = image["0020000E"]["Value"][0], image["00080018"]["Value"][0]
        picture = self.get(
            f"/wado?requestType=WADO&studyUID={study_uid}&seriesUID={series}&objectUID={instance}&contentType=image/png"
        )
        if not picture.content.startswith(b"\x89PNG"):
            raise PersonStuck(f"study {study_uid}: no picture")

    def report(self, study_uid: str, **sections: str) -> None:
        """Write the study's report and sign it; one that is signed already is left alone."""
        path = f"/studies/{study_uid}/report"
        if not any("findings" in form.fields for form in _parsed(self.page(path))):
            return
        self.submit(path, "findings", "sign", **sections)
        self.submit(path + "/sign", "/report/sign")

    def insist(self, what: Callable[[], object], deadline_s: float = 90) -> None:
        """Do it again until it works, as a person does whose page did not load."""
        end = time.monotonic() + deadline_s
        while True:
            try:
                what()
                return
            except PersonStuck:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)


def _parsed(html: str) -> list[Form]:
    parser = _Forms()
    parser.feed(html)
    return parser.found
