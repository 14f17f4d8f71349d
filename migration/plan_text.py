"""The plan document in words: its sections in Portuguese (as in Mozambique) or English, for the page and the PDF alike.

Pure. What administrators wrote into the plan stands as they wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal
from zoneinfo import ZoneInfo

from migration import plan_rule_text as rule_text
from migration.plan_document import PlanDocument
from zambezi import clock

Language = Literal["pt", "en"]

#: Rows of one table; what is longer says how much is left out.
_ROWS = 60


@dataclass(frozen=True)
class Table:
    """A table of the document; the first row of `rows` is its head where `has_head`."""

    rows: tuple[tuple[str, ...], ...]
    has_head: bool = True


@dataclass(frozen=True)
class Part:
    """A section: its title, paragraphs, and tables below them."""

    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Text:
    """The whole document in one language."""

    language: Language
    title: str
    cover: Table
    parts: tuple[Part, ...]
    page: str  # "{n}" stands for the number


def write(document: PlanDocument, language: Language, zone: ZoneInfo) -> Text:
    """Put the facts into words."""
    return _Writer(document, language, zone).text()


class _Writer:
    def __init__(self, document: PlanDocument, language: Language, zone: ZoneInfo) -> None:
        self._of = document
        self._language = language
        self._zone = zone

    def _say(self, en: str, pt: str) -> str:
        return en if self._language == "en" else pt

    def _n(self, number: float, digits: int = 0) -> str:
        """A number as it is written here: 41 234, and 0.6 or 0,6."""
        told = f"{number:,.{digits}f}".replace(",", " ")
        return told if self._language == "en" else told.replace(".", ",")

    def _studies(self, number: int) -> str:
        one, several = self._say("study", "estudo"), self._say("studies", "estudos")
        return f"{self._n(number)} {one if number == 1 else several}"

    def text(self) -> Text:
        parts: tuple[Callable[[], Part], ...] = (
            self._purpose, self._source, self._found, self._left_out, self._mapping, self._whose, self._way,
            self._proof, self._schedule, self._roll_back, self._cut_over, self._duties, self._open,
        )  # fmt: skip
        numbered = [part() for part in parts]
        return Text(
            self._language,
            self._of.plan.title or self._say("Migration plan ", "Plano de migração ") + self._of.project,
            self._cover(), tuple(Part(f"{n}. {one.title}", one.paragraphs, one.tables)
                                 for n, one in enumerate(numbered, 1)),
            self._say("Page {n}", "Página {n}"),
        )  # fmt: skip

    def _cover(self) -> Table:
        one = self._of
        version = (
            self._say(f"{one.version}, taken {self._moment(clock.parse(one.taken_at))} by {one.made_by}: {one.because}",
                   f"{one.version}, adoptada em {self._moment(clock.parse(one.taken_at))} por {one.made_by}: "
                   f"{one.because}")
            if one.version else self._say("none taken yet", "nenhuma adoptada ainda")
        )  # fmt: skip
        rows = [
            (self._say("Hospital", "Hospital"), one.site), (self._say("Migration", "Migração"), one.project),
            (self._say("Version of the plan", "Versão do plano"), version),
            (self._say("Digest of the plan (SHA-256)", "Resumo do plano (SHA-256)"), one.sha256 or "–"),
            (self._say("This document is of", "Este documento é de"), self._moment(one.made_at)),
        ]  # fmt: skip
        return Table(tuple(rows), has_head=False)

    def _purpose(self) -> Part:
        said = self._of.plan.purpose or self._say(
            "The studies of an older archive are brought into the hospital's archive. Nothing is changed or deleted at "
            "the source.",
            "Os estudos de um arquivo mais antigo são trazidos para o arquivo do hospital. Na origem nada é alterado "
            "nem "
            "apagado.",
        )
        return Part(self._say("Purpose", "Objectivo"), (said,))

    def _source(self) -> Part:
        one = self._of
        rows = [
            (self._say("Days", "Dias"), self._say("From", "Das"), self._say("To", "Às"), self._say("Cap", "Limite"))
        ]
        rows += [rule_text.hours(window, self._say) for window in one.windows]
        said = self._say(
            f"Source: {one.source}. Moved at once, and only inside these hours: {self._studies(one.ceiling)} at most.",
            f"Origem: {one.source}. Transferidos ao mesmo tempo, e só neste horário: no máximo "
            f"{self._studies(one.ceiling)}.",
        )
        return Part(self._say("Source and hours", "Origem e horário"), (said,), (Table(tuple(rows)),))

    def _found(self) -> Part:
        one = self._of
        said = [
            self._say(
                f"The inventory named {self._studies(one.studies)} with {self._n(one.images)} images, each counted "
                "twice.",
                f"O inventário nomeou {self._studies(one.studies)} com {self._n(one.images)} imagens, cada um contado "
                "duas vezes.",
            )
        ]
        if undated := one.coverage.get("undated"):
            told = self._studies(undated)
            said.append(self._say(f"Without a date: {told}.", f"Sem data: {told}."))
        if duplicates := len(one.coverage.get("duplicates") or {}):
            told = self._studies(duplicates)
            said.append(self._say(f"Under more than one patient: {told}.", f"Em mais do que um paciente: {told}."))
        years = [(self._say("Year", "Ano"), self._say("Studies", "Estudos"))]
        years += [
            (year or self._say("undated", "sem data"), self._n(number)) for year, number in sorted(one.years.items())
        ]
        kinds = [(self._say("Modality", "Modalidade"), self._say("Studies", "Estudos"))]
        kinds += [
            (kind or self._say("not said", "não indicada"), self._n(number)) for kind, number in one.modalities.items()
        ]
        return Part(
            self._say("What was found", "O que foi encontrado"), tuple(said), (self._table(years), self._table(kinds))
        )

    def _left_out(self) -> Part:
        one = self._of
        title = self._say("What is left out", "O que fica de fora")
        if not one.plan.skip:
            return Part(title, (self._say("Nothing: every study moves.", "Nada: todos os estudos são transferidos."),))
        rows = [(self._say("Rule", "Regra"), self._say("Which studies", "Que estudos"), self._say("Why", "Porquê"))]
        for rule in one.plan.skip:
            before = (self._say(f"before {self._day(rule.before)}", f"antes de {self._day(rule.before)}")
                      if rule.before else "")  # fmt: skip
            which = [f"{keyword} {rule_text.condition(wanted, self._say)}" for keyword, wanted in rule.when.items()]
            rows.append((rule.name, "; ".join(filter(None, [*which, before])), rule.because))
        left = one.states.get("skipped", 0)
        said = self._say(
            f"By these rules stay at the source: {self._studies(left)}; the certificate lists them.",
            f"Por estas regras ficam na origem: {self._studies(left)}; o certificado enumera-os.",
        )
        return Part(title, (said,), (self._table(rows),))

    def _mapping(self) -> Part:
        one = self._of
        title = self._say("Cleansing and mapping", "Correcção e correspondência de dados")
        if not one.plan.rules:
            words = self._say(
                "No rule changes anything: what the source says is kept.",
                "Nenhuma regra altera nada: mantém-se o que a origem diz.",
            )
            return Part(title, (words,))
        said = self._say(
            "Only these values change, as images come in. What they were stays inside each image (Original Attributes "
            "Sequence), and the proof of equality allows these differences and no others. Pixels never change.",
            "Só estes valores mudam, à entrada das imagens. O que eram fica guardado em cada imagem (Original "
            "Attributes "
            "Sequence) e a prova de igualdade admite estas diferenças e nenhumas outras. Os pixéis nunca mudam.",
        )
        rows = [
            (self._say("Rule", "Regra"), self._say("When", "Quando"), self._say("What it does", "O que faz"),
             self._say("Studies", "Estudos"))
        ]  # fmt: skip
        for rule in one.plan.rules:
            when = "; ".join(f"{k} {rule_text.condition(w, self._say)}" for k, w in rule.when.items())
            always = self._say("always", "sempre")
            rows.append(
                (rule.name, when or always, rule_text.steps(rule, self._say), self._n(one.rules.get(rule.name, 0)))
            )
        return Part(title, (said,), (self._table(rows),))

    def _whose(self) -> Part:
        one, how = self._of, self._of.plan.matching
        title = self._say("Whose the studies are", "De quem são os estudos")
        if how is None:
            words = self._say(
                "Patients are not compared with those of the hospital: identifiers stand as the rules leave them. "
                "Rules "
                "that would give two patients one identifier hold their studies.",
                "Os pacientes não são comparados com os do hospital: os números ficam como as regras os deixam. Se uma "
                "regra desse o mesmo número a dois pacientes, os seus estudos ficam retidos.",
            )
            return Part(title, (words,))
        said = self._say(
            "Each patient is compared with those of RIS and HIS by identifier, name, birth date and sex. From a score "
            "of "
            f"{self._n(how.accept, 2)}, with nobody else nearer than {self._n(how.lead, 2)}, the match is taken. "
            "Whoever resembles "
            f"somebody less, down to {self._n(how.look, 2)}, or has a number that is somebody else's, is held until a "
            "person "
            "decides, by name and with a reason. Nobody is merged unseen.",
            "Cada paciente é comparado com os do RIS e do HIS por número, nome, data de nascimento e sexo. A partir "
            "de "
            f"{self._n(how.accept, 2)}, sem outro a menos de {self._n(how.lead, 2)}, a correspondência é aceite. Quem "
            "se parece menos, "
            f"até {self._n(how.look, 2)}, ou traz um número que é de outra pessoa, fica retido até alguém decidir, com "
            "nome e "
            "motivo. Ninguém é fundido sem ser visto.",
        )
        names = {
            "matched": self._say("matched by score", "correspondência aceite"),
            "new": self._say("new here", "novos aqui"),
            "held": self._say("held for a person", "retidos, alguém tem de decidir"),
            "decided": self._say("decided by a person", "decididos por alguém"),
        }  # fmt: skip
        rows = [(self._say("Patients of the source", "Pacientes da origem"), self._say("Number", "Quantos"))]
        rows += [(names.get(state, state), self._n(number)) for state, number in one.patients.items()]
        return Part(title, (said,), (self._table(rows),) if one.patients else ())

    def _way(self) -> Part:
        order = {
            "scheduled": self._say("patients with an order to come first, then the newest studies",
                                "primeiro os pacientes com pedido marcado, depois os estudos mais recentes"),
            "newest": self._say("the newest studies first", "primeiro os estudos mais recentes"),
            "oldest": self._say("the oldest studies first", "primeiro os estudos mais antigos"),
        }[self._of.plan.order]  # fmt: skip
        said = self._say(
            f"Order: {order}. A patient who is in the room can be brought first at any time. Every image comes in "
            "through "
            "the archive's own door and meets its audit.",
            f"Ordem: {order}. Um paciente que está na sala pode ser trazido primeiro a qualquer momento. Cada imagem "
            "entra "
            "pela porta do próprio arquivo e fica registada na auditoria.",
        )
        return Part(self._say("Order", "Ordem"), (said,))

    def _proof(self) -> Part:
        sample, is_source = self._of.plan.sample, self._of.plan.level == "source"
        said = [
            self._say(
                "Every study: the images that the source names, counted twice, are what is stored (level 1), and what "
                "was "
                "received is what is stored, byte for byte (level 2).",
                "Todos os estudos: as imagens que a origem nomeia, contadas duas vezes, são as que ficam guardadas "
                "(nível "
                "1), e o que foi recebido é o que ficou guardado, byte a byte (nível 2).",
            )
        ]
        if is_source and sample is None:
            said.append(
                self._say(
                    "Every image is also compared with the source itself (level 3).",
                    "Cada imagem é também comparada com a própria origem (nível 3).",
                )
            )
        elif sample is not None:
            bound = min(100.0, 300 / max(1, min(sample.studies, self._of.studies or sample.studies)))
            said.append(
                self._say(
                    f"{self._studies(sample.studies)}, drawn before the transfer (seed {sample.seed}), are also "
                    "compared with the "
                    f"source itself (level 3): without a fault among them, at most {self._n(bound, 1)} % of all "
                    "studies differ "
                    "(95 % confidence).",
                    f"{self._studies(sample.studies)}, sorteados antes da transferência (semente {sample.seed}), são "
                    "também "
                    f"comparados com a própria origem (nível 3): sem nenhuma falha entre eles, diferem no máximo "
                    f"{self._n(bound, 1)} % de todos os estudos (confiança de 95 %).",
                )
            )
        said += rule_text.beside(self._of.plan.carry, self._say)
        said.append(
            self._say(
                "What can't be brought over or differs is listed with its reason, and a person decides on it. A signed "
                "certificate says of every image how far it is proven.",
                "O que não se consegue trazer, ou difere, é enumerado com o motivo e alguém decide. Um certificado "
                "assinado diz de cada imagem até onde está provada.",
            )
        )
        return Part(self._say("Proof", "Prova"), tuple(said))

    def _schedule(self) -> Part:
        found = self._of.estimate
        title = self._say("Schedule", "Calendário")
        if found is None and not self._of.is_source_known:
            words = self._say("The configuration doesn't know the source.", "A configuração não conhece a origem.")
            return Part(title, (words,))
        if found is None:
            return Part(title, (self._say("There is nothing left to move.", "Nada resta a transferir."),))
        speed = found.rates
        basis = (
            self._say(
                f"from {speed.measured} studies that it has sent", f"com base em {speed.measured} estudos já enviados"
            )
            if speed.measured
            else self._say("assumed, for nothing was measured yet", "pressuposta, pois ainda nada foi medido")
        )
        rows = [
            ("", self._say("Images a second", "Imagens por segundo"), self._say("Hours of work", "Horas de trabalho"),
             self._say("End", "Fim"))
        ]  # fmt: skip
        for name, rate, hours, end in zip(
            (self._say("Earliest", "Mais cedo"), self._say("Likely", "Provável"), self._say("Latest", "Mais tarde")),
            (speed.quick, speed.usual, speed.slow), found.working_hours,
            (found.earliest, found.likely, found.latest), strict=True,
        ):  # fmt: skip
            never = self._say("not with these hours", "não com este horário")
            rows.append((name, self._n(rate, 1), self._n(hours, 1), self._moment(end) if end else never))
        begins = self._of.plan.begins
        first = self._say(f"It begins on {self._day(begins)}. ", f"Começa em {self._day(begins)}. ") if begins else ""
        said = first + self._say(f"How quick the source is: {basis}.", f"Rapidez da origem: {basis}.")
        return Part(title, (said,), (Table(tuple(rows)),))

    def _roll_back(self) -> Part:
        by = {
            "one": self._say("one batch", "um só lote"), "year": self._say("one batch a year", "um lote por ano"),
            "count": self._say(f"batches of {self._of.plan.batches.studies} studies",
                            f"lotes de {self._of.plan.batches.studies} estudos"),
        }[self._of.plan.batches.by]  # fmt: skip
        said = [
            self._say(
                f"The migration is parted into {by}. A batch can be taken back: exactly what it stored is deleted, by "
                "the "
                "archive's one way of deletion; what was there before, or came from elsewhere, stays byte for byte.",
                f"A migração divide-se em {by}. Um lote pode ser revertido: apaga-se exactamente o que ele guardou, "
                "pela "
                "única via de eliminação do arquivo; o que já lá estava, ou veio de outro lado, fica byte a byte.",
            )
        ]
        return Part(self._say("Roll-back", "Reversão"), (*said, *filter(None, [self._of.plan.roll_back])))

    def _cut_over(self) -> Part:
        said = self._of.plan.cut_over or self._say(
            "The old archive is switched off only when passes over it find nothing new, no study is under way, every "
            "exception is decided, and new studies go to this archive.",
            "O arquivo antigo só é desligado quando as passagens por ele já nada encontram de novo, nenhum estudo está "
            "em "
            "curso, todas as excepções estão decididas e os estudos novos vêm para este arquivo.",
        )
        return Part(self._say("Cut-over", "Passagem definitiva"), (said,))

    def _duties(self) -> Part:
        title = self._say("Responsibilities", "Responsabilidades")
        if not self._of.plan.duties:
            return Part(title, (self._say("The plan names nobody yet.", "O plano ainda não nomeia ninguém."),))
        rows = [(self._say("Who", "Quem"), self._say("Answers for", "Responde por"))]
        rows += [(duty.who, duty.what) for duty in self._of.plan.duties]
        signed = self._say("Name, date, signature", "Nome, data, assinatura")
        lines = tuple((signed, "\n\n") for _ in range(2))
        return Part(title, (), (Table(tuple(rows)), Table(lines, has_head=False)))

    def _open(self) -> Part:
        one = self._of
        said = list(one.coverage.get("doubts") or ())
        if held := one.states.get("held", 0):
            said.append(
                self._say(
                    f"Held until a person has decided whose they are, or what they are to say: {self._studies(held)}.",
                    f"Retidos até alguém decidir de quem são ou o que devem dizer: {self._studies(held)}.",
                )
            )
        if not said:
            said = [self._say("Nothing is open.", "Nada está em aberto.")]
        return Part(self._say("Open points", "Pontos em aberto"), tuple(said))

    def _table(self, rows: Sequence[tuple[str, ...]]) -> Table:
        shown = list(rows[: _ROWS + 1])
        if len(rows) > len(shown):
            more = self._say(f"and {len(rows) - len(shown)} more", f"e mais {len(rows) - len(shown)}")
            shown.append((more, *[""] * (len(rows[0]) - 1)))
        return Table(tuple(shown))

    def _moment(self, at: datetime) -> str:
        return f"{at.astimezone(self._zone):%d/%m/%Y %H:%M}"

    def _day(self, day: date | None) -> str:
        return f"{day:%d/%m/%Y}" if day else ""
