"""Every path of Orthanc's HTTP, its plugins and ours: to whom it is shown, and which services may do more than read.

The plugin's filter (plugins/http_filter.py) refuses what is not listed here, and asks this table what a path shows.
Tests try every path with every role and method, and compare the table with what the installed Orthanc says that it
has; docs/access.md is printed from it. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Shows(StrEnum):
    """What a person may read there, by GET. Nobody writes through the front door; services read everything listed."""

    ANYONE = "whoever stands at the front door"
    VIEWER = "whoever may open images: a viewer's own files"
    STUDY = "whoever may open the study that it names; narrow sign-ins and share links, where they name that study"
    FILES = "the same, as DICOM files: a share link only where it allows to download"
    LIST = "whoever sees the whole site; others, where the query names one study of theirs"
    BY_ID = "whoever sees the whole site; on record as a view of the study that it belongs to"
    SITE = "whoever sees the whole site"
    EXPLORER = "roles that may explore Orthanc"
    SERVICES = "our own services alone"
    NOBODY = "nobody, no service either"


@dataclass(frozen=True)
class Route:
    """A path, `{name}` for one changing part and `{*}` for all that follows; `writes`: method -> services that may."""

    path: str
    shows: Shows
    writes: Mapping[str, frozenset[str]] = field(default_factory=dict)


#: Services that may do more than read: (method, path, who).
_WRITES: tuple[tuple[str, str, str], ...] = (
    ("POST", "/instances", "ris migration recovery custody gateway"),
    ("DELETE", "/instances/{id}", "custody"),
    ("POST", "/studies/{id}/reconstruct", "custody"),
    ("POST", "/modalities/{id}/store", "gateway"),
    ("POST", "/modalities/{id}/echo", "operations migration"),
    ("POST", "/peers/{id}/store", "gateway"),
    ("POST", "/modalities/{id}/query", "gateway migration"),
    ("POST", "/modalities/{id}/move", "migration"),
    ("POST", "/queries/{id}/retrieve", "gateway migration"),
    ("DELETE", "/queries/{id}", "gateway migration"),
    ("POST", "/tools/find", "gateway ris migration operations custody"),
    ("POST", "/tools/bulk-content", "gateway custody migration"),
    ("POST", "/jobs/{id}/cancel", "gateway migration"),
    ("POST", "/jobs/{id}/pause", "gateway"),
    ("POST", "/jobs/{id}/resume", "gateway"),
    ("POST", "/jobs/{id}/resubmit", "gateway"),
    ("POST", "/zambezi/reload", "operations"),
    ("PUT", "/zambezi/worklist", "gateway"),
    ("PUT", "/zambezi/announced", "gateway"),
    ("PUT", "/zambezi/revocations", "gateway"),
    ("PUT", "/zambezi/standing", "gateway"),
    ("PUT", "/zambezi/ready", "gateway"),
    ("PUT", "/zambezi/dry-run", "gateway"),
    ("PUT", "/zambezi/verify", "gateway migration"),
    *(
        ("PUT", f"/{level}/{{id}}/{what}", "migration")
        for level in ("patients", "studies", "series", "instances")
        for what in ("labels/{label}", "metadata/{name}", "attachments/{name}")
    ),  # what an old Orthanc's users put beside the images
)

_ATTACHMENT = (
    "", "/compress", "/compressed-data", "/compressed-md5", "/compressed-size", "/data", "/info", "/is-compressed",
    "/md5", "/size", "/uncompress", "/uuid", "/verify-md5",
)  # fmt: skip
_RESOURCE = (
    "", "/anonymize", "/attachments", "/labels", "/labels/{label}", "/metadata", "/metadata/{name}", "/modify",
    "/reconstruct", "/statistics", *(f"/attachments/{{name}}{end}" for end in _ATTACHMENT),
)  # fmt: skip
_STUDY = (
    "/instances", "/instances-tags", "/merge", "/module", "/module-patient", "/patient", "/series", "/shared-tags",
    "/split", "/update-dicomweb",
)  # fmt: skip
_SERIES = (
    "/instances",
    "/instances-tags",
    "/module",
    "/numpy",
    "/ordered-slices",
    "/patient",
    "/shared-tags",
    "/study",
)
_FRAME = (
    "",
    "/image-int16",
    "/image-uint16",
    "/image-uint8",
    "/matlab",
    "/numpy",
    "/preview",
    "/raw",
    "/raw.gz",
    "/rendered",
)
_INSTANCE = (
    "/content", "/content/{*}", "/export", "/file", "/frames", "/header", "/image-int16", "/image-uint16",
    "/image-uint8", "/matlab", "/module", "/numpy", "/patient", "/pdf", "/preview", "/rendered", "/series",
    "/simplified-tags", "/study", "/tags", *(f"/frames/{{frame}}{end}" for end in _FRAME),
)  # fmt: skip
_PATIENT = (
    "/instances", "/module", "/protected", "/series", "/studies",
)  # fmt: skip
_ZIPPED = ("/archive", "/media")

_DICOMWEB_STUDY = "/dicom-web/studies/{study}"
_DICOMWEB_SERIES = f"{_DICOMWEB_STUDY}/series/{{series}}"
_DICOMWEB_INSTANCE = f"{_DICOMWEB_SERIES}/instances/{{instance}}"

_READS: tuple[tuple[Shows, tuple[str, ...]], ...] = (
    # --- what would break the archive, or hide what was done to it
    (Shows.NOBODY, ("/tools/reset", "/tools/shutdown", "/tools/execute-script")),
    # --- DICOMweb (PS3.18) and WADO-URI
    (
        Shows.STUDY,
        (
            *(f"{_DICOMWEB_STUDY}{end}" for end in ("/metadata", "/rendered", "/thumbnail", "/series", "/instances")),
            *(f"{_DICOMWEB_SERIES}{end}" for end in ("/metadata", "/rendered", "/thumbnail", "/instances")),
            *(f"{_DICOMWEB_INSTANCE}{end}" for end in ("/metadata", "/rendered", "/thumbnail", "/frames")),
            f"{_DICOMWEB_INSTANCE}/bulk/{{*}}",
            *(f"{_DICOMWEB_INSTANCE}/frames/{{frame}}{end}" for end in ("", "/rendered", "/thumbnail")),
            "/wado",
            "/web-viewer/series/{id}",
            "/web-viewer/is-stable-series/{id}",
            "/web-viewer/instances/{frame}",
        ),
    ),
    (Shows.FILES, (_DICOMWEB_STUDY, _DICOMWEB_SERIES, _DICOMWEB_INSTANCE, *(f"/studies/{{id}}{z}" for z in _ZIPPED))),
    (Shows.LIST, ("/dicom-web/studies",)),
    (Shows.SITE, ("/dicom-web/series", "/dicom-web/instances")),
    (
        Shows.EXPLORER,
        (
            "/dicom-web", "/dicom-web/info", "/dicom-web/app/{*}", "/dicom-web/servers", "/dicom-web/servers/{name}",
            *(f"/dicom-web/servers/{{name}}/{do}" for do in ("delete", "get", "qido", "retrieve", "stow", "wado")),
        ),
    ),
    # --- the viewers; OHIF's own files are nginx's (docs/access.md)
    (Shows.VIEWER, ("/zambezi/viewer-door", "/web-viewer/app/{*}", "/web-viewer/libs/{*}")),
    # --- resources by their Orthanc id
    (
        Shows.BY_ID,
        (
            *(f"/studies/{{id}}{end}" for end in (*_RESOURCE, *_STUDY)),
            *(f"/series/{{id}}{end}" for end in (*_RESOURCE, *_SERIES, *_ZIPPED)),
            *(f"/instances/{{id}}{end}" for end in (*_RESOURCE, *_INSTANCE)),
        ),
    ),
    (
        Shows.EXPLORER,
        (
            "/", "/app/{*}", "/system", "/statistics", "/changes", "/exports",
            "/instances", "/series", "/studies", "/patients",
            *(f"/patients/{{id}}{end}" for end in (*_RESOURCE, *_PATIENT) if not end.startswith("/attachments")),
            "/jobs", "/jobs/{id}", *(f"/jobs/{{id}}/{do}" for do in ("cancel", "pause", "resubmit", "resume")),
            "/modalities", "/modalities/{id}",
            *(
                f"/modalities/{{id}}/{do}"
                for do in (
                    "configuration", "echo", "find", "find-instance", "find-patient", "find-series", "find-study",
                    "find-worklist", "get", "move", "query", "storage-commitment", "store", "store-straight",
                )
            ),
            "/peers", "/peers/{id}",
            *(f"/peers/{{id}}/{do}" for do in ("configuration", "store", "store-straight", "system")),
            "/plugins", "/plugins/{id}", "/plugins/explorer.js",
            "/queries", "/queries/{id}",
            *(f"/queries/{{id}}/{what}" for what in ("level", "modality", "query", "retrieve")),
            "/queries/{id}/answers", "/queries/{id}/answers/{index}",
            *(
                f"/queries/{{id}}/answers/{{index}}/{what}"
                for what in ("content", "query-instances", "query-series", "query-studies", "retrieve")
            ),
            "/storage-commitment/{id}", "/storage-commitment/{id}/remove",
            "/tools",
            *(
                f"/tools/{what}"
                for what in (
                    "accepted-sop-classes", "accepted-transfer-syntaxes", "bulk-anonymize", "bulk-content",
                    "bulk-delete", "bulk-modify", "count-resources", "create-dicom", "default-encoding",
                    "dicom-conformance", "dicom-echo", "find", "generate-uid", "invalidate-tags", "labels", "log-level",
                    "log-level-dicom", "log-level-generic", "log-level-http", "log-level-jobs", "log-level-lua",
                    "log-level-plugins", "log-level-sqlite", "lookup", "metrics", "metrics-prometheus", "now",
                    "now-local", "reconstruct", "unknown-sop-class-accepted",
                )
            ),
        ),
    ),
    # --- many studies at once, with nobody on record for each; and what was made of them
    (
        Shows.SERVICES,
        (
            *(f"/patients/{{id}}{end}" for end in (*_ZIPPED, "/attachments", "/instances-tags", "/shared-tags")),
            *(f"/patients/{{id}}/attachments/{{name}}{end}" for end in _ATTACHMENT),
            "/jobs/{id}/{key}", "/tools/create-archive", "/tools/create-media", "/tools/create-media-extended",
        ),
    ),
    # --- our plugin's own
    (Shows.ANYONE, ("/zambezi/door",)),
    (
        Shows.SERVICES,
        (
            "/zambezi/{*}", "/zambezi/status", "/zambezi/journal", "/zambezi/explain", "/zambezi/reload",
            "/zambezi/standing", "/zambezi/worklist", "/zambezi/announced", "/zambezi/revocations", "/zambezi/ready",
            "/zambezi/dry-run", "/zambezi/verify", "/zambezi/callers",
        ),
    ),
)  # fmt: skip


def _table() -> tuple[Route, ...]:
    writes: dict[str, dict[str, frozenset[str]]] = {}
    for method, path, who in _WRITES:
        writes.setdefault(path, {})[method] = frozenset(who.split())
    return tuple(Route(path, shows, writes.get(path, {})) for shows, paths in _READS for path in paths)


#: The table.
ROUTES: tuple[Route, ...] = _table()

_HERE, _ANY, _REST = "", "{}", "{*}"


def _tree(routes: tuple[Route, ...]) -> dict[str, object]:
    root: dict[str, object] = {}
    for route in routes:
        node = root
        for part in _parts(route.path):
            key = part if part == _REST else _ANY if part.startswith("{") else part
            node = node.setdefault(key, {})  # type: ignore[assignment]  # nodes hold nodes
        if _HERE in node:
            raise ValueError(f"{route.path} is listed twice")
        node[_HERE] = route
    return root


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


_TREE = _tree(ROUTES)


def find(path: str) -> Route | None:
    """The route that a path belongs to, the one that names most of it; None for a path that is not listed.

    `path` as Orthanc resolves it: decoded, without `..`, doubled slashes and a slash at its end.
    """
    return _find(_TREE, _parts(path), 0)


def _find(node: dict[str, object], parts: list[str], at: int) -> Route | None:
    if at == len(parts):
        here = node.get(_HERE)
        return here if isinstance(here, Route) else None
    for key in (parts[at], _ANY):
        below = node.get(key)
        if isinstance(below, dict) and key != _REST:
            found = _find(below, parts, at + 1)
            if found:
                return found
    rest = node.get(_REST)
    if isinstance(rest, dict):
        here = rest.get(_HERE)
        return here if isinstance(here, Route) else None
    return None
