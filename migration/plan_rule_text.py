"""Rules, conditions and opening hours of a plan in words, in the language that `say` takes of (English, Portuguese)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zambezi.config.settings import Wanted, Window
from zambezi.config.settings.migration_plan import PlanRule

Say = Callable[[str, str], str]

_DAYS = {"Mon": "seg", "Tue": "ter", "Wed": "qua", "Thu": "qui", "Fri": "sex", "Sat": "sáb", "Sun": "dom"}


_BESIDE = {"labels": "etiquetas", "metadata": "metadados", "attachments": "anexos"}


def beside(carried: Sequence[str], say: Say) -> list[str]:
    """What comes besides images, in a sentence; none where nothing does."""
    if not carried:
        return []
    named = say(", ".join(carried), ", ".join(_BESIDE[one] for one in carried))
    return [
        say(
            f"Beside the images come, from the old archive: {named}; each is read back and compared.",
            f"Ao lado das imagens vêm, do arquivo antigo: {named}; cada um é relido e comparado.",
        )
    ]


def steps(rule: PlanRule, say: Say) -> str:
    """What a rule does."""
    told = []
    if rule.character_set:
        told.append(say(f"texts are read as {rule.character_set}", f"os textos são lidos como {rule.character_set}"))
    told += [say(f"{one}: tidied", f"{one}: arrumado") for one in rule.tidy]
    for keyword, how in rule.strip.items():
        parts = [repr(part) for part in (how.prefix, how.suffix, how.characters) if part]
        if how.zeros:
            parts.append(say("leading zeros", "zeros à esquerda"))
        told.append(say(f"{keyword}: without ", f"{keyword}: sem ") + ", ".join(parts))
    told += [say(f"{k}: first {n} characters", f"{k}: primeiros {n} caracteres") for k, n in rule.cut.items()]
    told += [
        say(f"{k}: {how.length} characters, filled with {how.with_!r}",
            f"{k}: {how.length} caracteres, preenchido com {how.with_!r}")
        for k, how in rule.pad.items()
    ]  # fmt: skip
    told += [say(f"{k}: begins with {v!r}", f"{k}: começa por {v!r}") for k, v in rule.prefix.items()]
    told += [f"{to} ← {source}" for to, source in rule.copy_.items()]
    told += [
        say(f"{k}: values mapped: {len(pairs)}", f"{k}: valores convertidos: {len(pairs)}")
        for k, pairs in rule.map_.items()
    ]
    told += [f"{keyword} = {value!r}" for keyword, value in rule.set_.items()]
    told += [say(f"{k} = {v!r} where empty", f"{k} = {v!r} se vazio") for k, v in rule.fill.items()]
    return "; ".join(told)


def condition(wanted: Wanted, say: Say) -> str:
    """What is asked of an attribute."""
    if wanted.present is not None:
        return say("present", "presente") if wanted.present else say("missing", "em falta")
    either = say(" or ", " ou ")
    if wanted.pattern:
        return say("like ", "como ") + either.join(wanted.pattern)
    return "= " + either.join(wanted.equal)


def hours(window: Window, say: Say) -> tuple[str, str, str, str]:
    """Days, from, to, cap."""
    named = " ".join(say(day, _DAYS[day]) for day in window.days)
    if len(window.days) == len(_DAYS):
        named = say("every day", "todos os dias")
    cap = f"{window.kilobits_per_second} kbit/s" if window.kilobits_per_second else "–"
    if window.from_ == window.to:
        return named, say("all day", "todo o dia"), "", cap
    return named, f"{window.from_:%H:%M}", f"{window.to:%H:%M}", cap
