"""Portuguese and English, as they are written in Mozambique and Zimbabwe; times in the site's zone.

Message ids are the English sentences. Catalogues are .po files (`translations/*pt.po` beside each page set),
compiled in memory when the application starts, so no compiled file can be older than its source.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from babel import Locale, dates
from babel.messages import mofile, pofile
from babel.support import NullTranslations, Translations
from flask import request
from flask_babel import Domain, get_locale
from flask_babel import gettext as _gettext
from flask_login import current_user
from markupsafe import Markup

from ris_service.parts import parts
from zambezi import clock, phrases

#: `pt` alone would be Brazilian, `en` alone American.
LOCALES = {"pt": "pt_MZ", "en": "en_ZW"}
#: The order of day and month is the same in both languages; the 24-hour clock, too.
PATTERNS = {
    "short": "dd/MM/yyyy HH:mm",
    "seconds": "dd/MM/yyyy HH:mm:ss",
    "day": "dd/MM/yyyy",
    "time": "HH:mm",
}
NAMES = {"pt": "Português", "en": "English"}


class Catalogues(Domain):  # type: ignore[misc]  # Flask-Babel publishes no types
    """All page sets' messages, by language; English is what the source says. Reasons: zambezi.phrases."""

    def __init__(self, folders: Iterable[Path]) -> None:
        super().__init__()
        files = (file for folder in folders for file in sorted(folder.glob("translations/*pt.po")))
        self._portuguese = compiled(file for file in files if file.name != phrases.FILE)

    def get_translations(self) -> NullTranslations:
        return self._portuguese if language() == "pt" else NullTranslations()


def compiled(files: Iterable[Path]) -> Translations:
    """The .po files as one catalogue."""
    merged = Translations()
    for file in files:
        with file.open("rb") as source:
            catalogue = pofile.read_po(source, locale="pt_PT")
        out = io.BytesIO()
        mofile.write_mo(out, catalogue)
        out.seek(0)
        merged.merge(Translations(out))
    return merged


def reason_told(kept: str) -> tuple[str, str]:
    """A reason as it is kept, in the language of this request where that has it, and the language that it is in."""
    said = phrases.portuguese().said(kept) if language() == "pt" else None
    return (kept, "en") if said is None else (said, "pt")


def reason(kept: str | None) -> str:
    """The same for a page, which marks what is English among Portuguese."""
    told, spoken = reason_told(kept or "")
    return told if spoken == language() or not told else Markup('<span lang="en">{}</span>').format(told)


def gettext(message: str, **values: object) -> str:
    """The message in the language of this request."""
    return str(_gettext(message, **values))


def language() -> str:
    """The language of this request: pt or en."""
    locale = get_locale()
    return str(locale.language) if locale else "en"


def locale_of_request() -> str:
    """What the person chose; before a sign-in `?lang=`; else the site's."""
    asked = request.args.get("lang", "")
    chosen = getattr(current_user, "language", None) or asked
    return LOCALES.get(chosen) or LOCALES[parts().settings.site.language]


def moment(written: str | None, form: str = "short") -> str:
    """A stored moment in the site's zone: `short` 21/11/2026 20:37, `time` 20:37, `long` with the month's name."""
    if not written:
        return ""
    return _moment(clock.parse(written), form, parts().settings.site.zone, LOCALES[language()])


def _moment(at: datetime, form: str, zone: ZoneInfo, locale: str) -> str:
    if form == "long":
        day = dates.format_date(at.astimezone(zone).date(), "long", locale=locale)
        return f"{day}, {dates.format_datetime(at, 'HH:mm', tzinfo=zone, locale=locale)}"
    return dates.format_datetime(at, PATTERNS[form], tzinfo=zone, locale=locale)


def lasting(written: str | None) -> str:
    """How long ago a stored moment is, in words: 3 dias, 20 minutes."""
    if not written:
        return ""
    return str(
        dates.format_timedelta(
            parts().clock() - clock.parse(written), granularity="minute", threshold=1.5, locale=LOCALES[language()]
        )
    )


def day(dicom_date: str | None) -> str:
    """A DICOM date (YYYYMMDD) as people write it here; what is no date stays as it is."""
    try:
        found = datetime.strptime(dicom_date or "", "%Y%m%d").date()  # noqa: DTZ007  # a date has no zone
    except ValueError:
        return dicom_date or ""
    return f"{found:%d/%m/%Y}"


def age(birth_date: str | None, today: date) -> int | None:
    """Whole years; None where the birth date is unknown."""
    try:
        born = datetime.strptime(birth_date or "", "%Y%m%d").date()  # noqa: DTZ007  # a date has no zone
    except ValueError:
        return None
    return today.year - born.year - ((today.month, today.day) < (born.month, born.day))


def locale_object() -> Locale:
    """Babel's locale of this request."""
    return Locale.parse(LOCALES[language()])
