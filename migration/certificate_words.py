"""The words of a certificate for people, in Portuguese and English."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """All sentences of the PDF, in one language; braces hold what it fills in."""

    language: str
    title: str
    about: str
    complete: str
    incomplete: str
    only_source: str
    studies: str
    instances: str
    size: str
    period: str
    inventoried: str
    levels: str
    level: str
    meaning: str
    share: str
    level_names: tuple[str, str, str, str]
    sampled: str
    unsampled: str
    arrival_only: str
    what: str
    year: str
    modality: str
    undated: str
    unknown: str
    changed: str
    unchanged: str
    extras: str
    extra: dict[str, str]
    tag: str
    syntaxes: str
    exceptions: str
    none: str
    more: str
    study: str
    state: str
    reason: str
    decided: str
    states: dict[str, str]
    verify: str
    verify_text: str
    key: str
    root: str
    head: str
    trail: str
    programs: str
    signatures: str
    page: str


EN = Words(
    language="en-GB", title="Certificate of migration", about="{project}: from {source}. Issued {at} by {who}.",
    complete="All {studies} studies that the source named are in the archive, and verified.",
    incomplete="{verified} of {studies} studies that the source named are in the archive and verified. "
    "{others} are not; each is listed with its reason.",
    only_source="Only level 3 compares with the source itself. Levels 1 and 2 hold for every instance that is counted "
    "there or above.",
    studies="Studies", instances="Instances", size="Bytes in the archive", period="Verified",
    inventoried="Inventory begun",
    levels="How far each instance is proven", level="Level", meaning="What that means", share="Share",
    level_names=(
        "Not proven: missing, left out, or taken back", "Set: the source names it and the archive holds it",
        "Arrival: the file on the disk is, byte for byte, what the archive received",
        "Source: compared with the source itself, and equal",
    ),
    sampled="A random sample was drawn before anything moved: {compared} of {drawn} drawn studies were compared with "
    "the source in full, {differing} differ. With 95 % confidence, at most {bound} of all studies differ "
    "(Clopper and Pearson). Seed {seed}, from {population} studies.",
    unsampled="Every study was to be compared with the source: there is no sample, and no error of a sample.",
    arrival_only="The plan did not ask for a comparison with the source; arrival is proven, for every instance.",
    what="What was brought", year="Year", modality="Modality", undated="undated", unknown="unknown",
    changed="Changed on the way, as the plan declares it (the old values stay in the image)",
    unchanged="Nothing was changed on the way.",
    extras="Beside the images, from the old archive",
    extra={
        "label": "labels", "metadata": "metadata", "attachment": "attachments", "any": "what lies beside a study",
        "carried": "brought, read back, equal", "there": "was here before", "due": "not brought yet",
        "other": "not brought: the archive has another", "left": "not brought", "rolled-back": "taken back",
    }, tag="Attribute", syntaxes="Transfer syntaxes, as stored",
    exceptions="What is not verified", none="Nothing: every study is verified.",
    more="{count} more are listed in the certificate's file.", study="Study", state="State", reason="Reason",
    decided="Decided by {by}, {at}: {decision}",
    states={
        "verified": "verified", "divergent": "differs", "parked": "failed", "held": "held", "skipped": "left out",
        "waived": "waived", "rolled-back": "taken back", "conflict": "conflict",
        "vanished": "vanished there", "incomplete": "incomplete",
    },
    verify="How to verify it",
    verify_text="This page is for reading. What is signed is the certificate's file, which names every instance with "
    "its digests. Verify it on any computer, without the archive: zambezi migrate verify-certificate FILE, or "
    "python3 verifier.py FILE --key-id {key}. Against the archive: add --against-archive.",
    key="Signed with key (fingerprint)", root="Merkle root over all instances", head="SHA-256 of the signed line",
    trail="Head of the audit chain", programs="Programs", signatures="Read and accepted (name, date, signature)",
    page="Page {n}",
)  # fmt: skip

PT = Words(
    language="pt-PT", title="Certificado de migração", about="{project}: de {source}. Emitido {at} por {who}.",
    complete="Todos os {studies} estudos que a origem nomeou estão no arquivo e verificados.",
    incomplete="{verified} de {studies} estudos que a origem nomeou estão no arquivo e verificados. "
    "{others} não estão; cada um consta com o seu motivo.",
    only_source="Só o nível 3 compara com a própria origem. Os níveis 1 e 2 valem para cada instância que ali ou acima "
    "é contada.",
    studies="Estudos", instances="Instâncias", size="Bytes no arquivo", period="Verificados",
    inventoried="Inventário iniciado",
    levels="Até onde cada instância está provada", level="Nível", meaning="O que significa", share="Parte",
    level_names=(
        "Não provada: em falta, deixada de fora ou retirada", "Conjunto: a origem nomeia-a e o arquivo tem-na",
        "Chegada: o ficheiro no disco é, byte a byte, o que o arquivo recebeu",
        "Origem: comparada com a própria origem, e igual",
    ),
    sampled="Antes de qualquer transferência sorteou-se uma amostra: {compared} de {drawn} estudos sorteados foram "
    "comparados por inteiro com a origem, {differing} diferem. Com 95 % de confiança, no máximo {bound} de "
    "todos os estudos diferem (Clopper e Pearson). Semente {seed}, de {population} estudos.",
    unsampled="Todos os estudos deviam ser comparados com a origem: não há amostra, nem erro de amostra.",
    arrival_only="O plano não pediu a comparação com a origem; a chegada está provada, para cada instância.",
    what="O que foi trazido", year="Ano", modality="Modalidade", undated="sem data", unknown="desconhecida",
    changed="Alterado no caminho, como o plano declara (os valores antigos ficam na imagem)",
    unchanged="Nada foi alterado no caminho.",
    extras="Ao lado das imagens, do arquivo antigo",
    extra={
        "label": "etiquetas", "metadata": "metadados", "attachment": "anexos", "any": "o que está ao lado de um estudo",
        "carried": "trazidos, relidos, iguais", "there": "já estavam cá", "due": "ainda por trazer",
        "other": "não trazidos: o arquivo tem outros", "left": "não trazidos", "rolled-back": "retirados",
    }, tag="Atributo", syntaxes="Sintaxes de transferência, como guardadas",
    exceptions="O que não está verificado", none="Nada: todos os estudos estão verificados.",
    more="Mais {count} constam no ficheiro do certificado.", study="Estudo", state="Estado", reason="Motivo",
    decided="Decidido por {by}, {at}: {decision}",
    states={
        "verified": "verificado", "divergent": "difere", "parked": "falhou", "held": "retido",
        "skipped": "deixado de fora", "waived": "dispensado", "rolled-back": "retirado", "conflict": "conflito",
        "vanished": "desapareceu lá", "incomplete": "incompleto",
    },
    verify="Como verificar",
    verify_text="Esta página é para ler. O que está assinado é o ficheiro do certificado, que nomeia cada instância "
    "com os seus resumos criptográficos. Verifique-o em qualquer computador, sem o arquivo: zambezi migrate "
    "verify-certificate FICHEIRO, ou python3 verifier.py FICHEIRO --key-id {key}. Contra o arquivo: acrescente "
    "--against-archive.",
    key="Assinado com a chave (impressão digital)", root="Raiz de Merkle de todas as instâncias",
    head="SHA-256 da linha assinada", trail="Cabeça da cadeia de auditoria", programs="Programas",
    signatures="Lido e aceite (nome, data, assinatura)", page="Página {n}",
)  # fmt: skip

WORDS = {"en": EN, "pt": PT}
