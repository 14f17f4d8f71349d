"""The second lock on Orthanc's HTTP: which request may pass. Pure; deny by default.

What is not in the table (zambezi.access.routes) is refused to everyone, and so is what the table shows to nobody.

Orthanc's own authentication has been passed when this is asked (the first lock). A service is known by
its user; user `front` is the front door, behind which a person must show a token. Orthanc hands over the
path decoded and with `..` and doubled slashes resolved, and query arguments of GET as a dictionary in
which a doubled name keeps its last value, which is also the one the plugins behind it use (tests hold both).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from zambezi.access import may, routes, tokens
from zambezi.access.routes import Route, Shows
from zambezi.access.tokens import Token, TokenRefused

FRONT = "front"
#: Asked by the front door before it shows a viewer's page: is there a token that opens images at all?
VIEWER_DOOR = "/zambezi/viewer-door"

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_RESOURCE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")

#: What each service may do beside reading: (method, path pattern). Reading itself: every GET, but for `front`.
_SERVICES: dict[str, tuple[tuple[str, str], ...]] = {
    "gateway": (
        ("POST", r"/instances"),  # its coercing port, on behalf of modalities
        ("POST", r"/modalities/[^/]+/(store|query)"),
        ("POST", r"/queries/[^/]+/retrieve"),  # earlier studies are fetched
        ("POST", r"/peers/[^/]+/store"),
        ("POST", r"/tools/(find|bulk-content)"),
        ("POST", r"/jobs/[^/]+/(cancel|pause|resume|resubmit)"),
        ("DELETE", r"/queries/[^/]+"),
        ("PUT", r"/zambezi/.+"),
    ),
    "ris": (("POST", r"/instances"), ("POST", r"/tools/find")),
    "migration": (
        ("POST", r"/modalities/[^/]+/(query|move|echo)"),
        ("POST", r"/queries/[^/]+/retrieve"),
        ("DELETE", r"/queries/[^/]+"),
        ("POST", r"/tools/(find|bulk-content)"),
        ("POST", r"/jobs/[^/]+/cancel"),
        ("POST", r"/instances"),
        ("PUT", r"/zambezi/verify"),
        # What an old Orthanc's users put beside the images; Orthanc itself keeps its own from being written.
        (
            "PUT",
            r"/(patients|studies|series|instances)/[0-9a-f-]{44}/(labels|metadata|attachments)/[A-Za-z0-9_-]{1,64}",
        ),
    ),
    "operations": (
        ("POST", r"/tools/find"),
        ("POST", r"/zambezi/reload"),
        ("POST", r"/modalities/[^/]+/echo"),
    ),
    "recovery": (("POST", r"/instances"),),
    #: The one service that corrects and deletes: always instance by instance, each named in its own list beforehand.
    "custody": (
        ("POST", r"/instances"),
        ("POST", r"/tools/(find|bulk-content)"),
        ("DELETE", r"/instances/[0-9a-f-]{44}"),
        ("POST", r"/studies/[0-9a-f-]{44}/reconstruct"),  # the index reads its tags anew; changes no image
    ),
}

#: Query arguments that a path which names its study may carry. Everything else is refused: in DICOMweb
#: `/studies/A/series?StudyInstanceUID=B`, or `?0020000D=B`, answers with B.
_HARMLESS = frozenset(
    {
        "limit", "offset", "includefield", "fuzzymatching", "accept", "charset", "viewport", "window", "quality",
        "annotation", "iccprofile", "modality", "seriesinstanceuid", "sopinstanceuid", "_",
    }
)  # fmt: skip
#: A list of studies (QIDO-RS) that can only hold the one study it names: OHIF asks for it before it opens the study.
#: Names and values as they are here, or not at all: Orthanc leaves out of account what it doesn't know
#: (`studyinstanceuid=A` lists every study) and takes `StudyInstanceUID=A,B` and an empty one for a list.
_ONE_STUDY = {
    "StudyInstanceUID": _UID,
    "limit": re.compile(r"[0-9]{1,6}"),
    "offset": re.compile(r"[0-9]{1,6}"),
    "fuzzymatching": re.compile(r"false"),
    "includefield": re.compile(r"[0-9A-Za-z,]*"),
}
_WADO = frozenset(
    {
        "requesttype", "studyuid", "seriesuid", "objectuid", "contenttype", "charset", "anonymize", "annotation",
        "rows", "columns", "region", "windowcenter", "windowwidth", "framenumber", "imagequality", "transfersyntax",
    }
)  # fmt: skip


#: Into what persons may have images transcoded (PS3.5 A): uncompressed, JPEG baseline, JPEG lossless. Not into
#: what this Orthanc may not survive: 1.10.1 ends with a fault of memory when it writes 8 bit images as JPEG-LS.
_TRANSCODED = frozenset(
    {
        "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.57",
        "1.2.840.10008.1.2.4.70",
    }
)  # fmt: skip
_SYNTAX = re.compile(r"1\.2\.840\.10008\.1\.2[0-9.]*|jls|jpeg-ls")
_NAMES_SYNTAX = frozenset({"accept", "transfersyntax", "transfer-syntax", "transcode", "contenttype"})


@dataclass(frozen=True)
class Request:
    """A request as Orthanc shows it to the filter; header names in lower case."""

    method: str
    path: str
    ip: str
    headers: Mapping[str, str]
    arguments: Mapping[str, str]

    @property
    def user(self) -> str:
        """Who passed Orthanc's own authentication."""
        scheme, _, encoded = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return ""
        try:
            return base64.b64decode(encoded, validate=True).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return ""

    @property
    def size(self) -> int:
        """Bytes of its body, as far as it says so."""
        said = self.headers.get("content-length", "")
        return int(said) if re.fullmatch("[0-9]{1,15}", said) else 0

    @property
    def address(self) -> str:
        """Where it comes from; the front door tells whom it speaks for."""
        return self.headers.get("x-real-ip", self.ip) if self.user == FRONT else self.ip

    @property
    def token(self) -> str:
        """The signed token: in its header, else in the one cookie of the host."""
        shown = self.headers.get(tokens.HEADER, "").strip()
        if shown:
            return shown
        for part in self.headers.get("cookie", "").split(";"):
            name, _, value = part.strip().partition("=")
            if name == tokens.COOKIE:
                return value
        return ""


@dataclass(frozen=True)
class Decision:
    """Whether the request passes, and why. `views` is the study that a person sees by it, where there is one."""

    allowed: bool
    reason: str
    who: str = ""
    token: Token | None = None
    views: str | None = None


#: Which study a resource of Orthanc belongs to: (level, orthanc_id) -> Study Instance UID, None if unknown.
StudyOf = Callable[[str, str], str | None]
#: How many patients have images under a Study Instance UID, as far as it is recorded.
PatientsOf = Callable[[str], int]


def decide(
    request: Request, key: str, revoked: frozenset[str], now_s: int, study_of: StudyOf, patients_of: PatientsOf
) -> Decision:
    """The whole decision; `key` is the session key in hex."""
    user = request.user
    path = request.path.rstrip("/") or "/"
    route = routes.find(path)
    if route is None:
        return Decision(False, "no path that Zambezi lists", user)
    if route.shows is Shows.NOBODY:
        return Decision(False, f"{path} is refused to everyone", user)
    if request.method == "DELETE" and (path == "/changes"):
        return Decision(False, "DELETE /changes is refused to everyone", user)
    if user == FRONT:
        return _person(request, path, route, key, revoked, now_s, study_of, patients_of)
    if user not in _SERVICES:
        return Decision(False, "no service of ours", user)
    if request.method == "GET":
        return Decision(True, "a service may read", user)
    for method, pattern in _SERVICES[user]:
        if method == request.method and re.fullmatch(pattern, path):
            return Decision(True, f"{user} may {method} {pattern}", user)
    return Decision(False, f"{user} may not {request.method} here", user)


def _person(
    request: Request, path: str, route: Route, key: str, revoked: frozenset[str], now_s: int, study_of: StudyOf,
    patients_of: PatientsOf,
) -> Decision:  # fmt: skip
    if request.method != "GET":
        return Decision(False, "persons only read here", FRONT)
    if route.shows is Shows.ANYONE:
        return Decision(True, "whether the door is there may be asked by everyone", FRONT)
    if route.shows is Shows.SERVICES:
        return Decision(False, "this path is not for persons", FRONT)
    if not request.token:
        return Decision(False, "no token", FRONT)
    try:
        token = tokens.read(request.token, key, now_s)
    except (TokenRefused, ValueError, KeyError, TypeError) as error:
        return Decision(False, f"token: {error}", FRONT)
    if token.session in revoked or token.subject in revoked:
        return Decision(False, "the session was revoked", token.subject, token)
    return _images(request, path, route.shows, token, now_s, study_of, patients_of)


def _images(
    request: Request, path: str, shows: Shows, token: Token, now_s: int, study_of: StudyOf, patients_of: PatientsOf
) -> Decision:
    def answer(allowed: bool, reason: str, views: str | None = None) -> Decision:
        return Decision(allowed, reason, token.subject, token, views)

    if not (may(token.role, "images.view") or may(token.role, "images.view-own")):
        return answer(False, f"role {token.role} may not view images")
    if shows is Shows.VIEWER:
        return answer(True, "the viewer's own files")
    if _wants_another_syntax(request):
        return answer(False, "the archive does not compress into that transfer syntax for viewers")
    # A token that names studies is narrow whatever its role says: the narrower of both holds.
    narrow = token.is_narrow or not may(token.role, "images.view")
    if narrow and shows not in (Shows.STUDY, Shows.FILES, Shows.LIST):
        return answer(False, "this path does not name a study")
    study, why = _study_named(request, path, study_of)
    if why:
        return answer(False, why)
    if study is not None:
        if narrow and not token.opens(study, now_s):
            return answer(False, "the token does not open this study")
        # Of one patient when the token was made; since then a modality has used the number a second time.
        if narrow and patients_of(study) > 1:
            return answer(False, "images of two patients carry this Study Instance UID; a viewer shows them together")
        if not token.may_download and (shows is Shows.FILES or _asks_for_a_file(request)):
            return answer(False, "the link shows images, and hands no files over")
        return answer(True, "the study may be viewed", study)
    if narrow:
        return answer(False, "this path does not name a study")
    if shows in (Shows.LIST, Shows.SITE):
        return answer(True, "studies of the site may be listed")
    if shows is Shows.EXPLORER and may(token.role, "orthanc.explore"):
        return answer(True, "the role explores Orthanc, reading only")
    return answer(False, "no such right")


def _wants_another_syntax(request: Request) -> bool:
    """Whether it asks for a transfer syntax that is not among _TRANSCODED (PS3.18 8.7.3.5; WADO-URI; `transcode`)."""
    asked = [value for name, value in request.arguments.items() if name.lower() in _NAMES_SYNTAX]
    found = _SYNTAX.findall(" ".join([request.headers.get("accept", ""), *asked]).lower())
    return any(one not in _TRANSCODED for one in found)


def _asks_for_a_file(request: Request) -> bool:
    """Whether WADO-URI is asked for the DICOM file instead of a picture (PS3.18, contentType)."""
    return any(name.lower() == "contenttype" and "dicom" in value.lower() for name, value in request.arguments.items())


def _study_named(request: Request, path: str, study_of: StudyOf) -> tuple[str | None, str]:
    """(study, "") where the path shows one study; (None, why) where it must be refused; (None, "") for other paths."""
    found = re.fullmatch(r"/dicom-web/studies/([^/]+)(/.*)?", path)
    if found:
        strange = [name for name in request.arguments if name.lower() not in _HARMLESS]
        if strange:
            return None, "an argument that could name another study"
        return (found[1], "") if _UID.fullmatch(found[1]) else (None, "not a Study Instance UID")
    if path == "/dicom-web/studies" and _names_one_study(request.arguments):
        return request.arguments["StudyInstanceUID"], ""
    if path == "/wado":
        if [name for name in request.arguments if name.lower() not in _WADO]:
            return None, "an argument that WADO does not have"
        if [name for name in request.arguments if name.lower() == "studyuid"] != ["studyUID"]:
            return None, "WADO wants exactly one studyUID (PS3.18)"
        uid = request.arguments["studyUID"]
        return (uid, "") if _UID.fullmatch(uid) else (None, "not a Study Instance UID")
    for pattern, level in (
        (r"/web-viewer/(?:series|is-stable-series)/([^/]+)", "series"),
        (r"/web-viewer/instances/[a-z0-9]+-([0-9a-f-]{44})_[0-9]+", "instances"),
        (r"/studies/([^/]+)(?:/.*)?", "studies"),
        (r"/series/([^/]+)(?:/.*)?", "series"),
        (r"/instances/([^/]+)(?:/.*)?", "instances"),
    ):
        found = re.fullmatch(pattern, path)
        if found:
            study = study_of(level, found[1]) if _RESOURCE.fullmatch(found[1]) else None
            return (study, "") if study else (None, "no such resource is recorded")
    if path.startswith("/web-viewer/"):
        return None, "no such path of the viewer"
    return None, ""


def stores(request: Request) -> bool:
    """Whether it brings an instance in: the one such path that any service has."""
    return request.method == "POST" and request.path.rstrip("/") == "/instances"


def _names_one_study(arguments: Mapping[str, str]) -> bool:
    return "StudyInstanceUID" in arguments and all(
        name in _ONE_STUDY and _ONE_STUDY[name].fullmatch(value) for name, value in arguments.items()
    )
