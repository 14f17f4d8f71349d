"""What conditions (operations.conditions) are called and mean, in both languages, as zambezi.exception_kinds has it."""

from __future__ import annotations

from zambezi.exception_kinds import Kind, Words

CONDITIONS: dict[str, Kind] = {
    "disk-low": Kind(
        Words(
            "Disk getting full",
            "Disk ({source}): {free} GB of {total} GB are free.",
            "Give it more room: with less, migration stops, and then the archive refuses images.",
        ),
        Words(
            "Disco a encher",
            "Disco ({source}): estão livres {free} GB de {total} GB.",
            "Dê-lhe mais espaço: com menos, a migração pára e depois o arquivo recusa imagens.",
        ),
        serious=True,
    ),
    "disk-scarce": Kind(
        Words(
            "Disk nearly full: migration has stopped",
            "Disk ({source}): {free} GB of {total} GB are free. Migration waits; modalities store.",
            "Give it more room now: with less, the archive refuses images. Migration then goes on by itself.",
        ),
        Words(
            "Disco quase cheio: a migração parou",
            "Disco ({source}): estão livres {free} GB de {total} GB. A migração espera; os equipamentos guardam.",
            "Dê-lhe já mais espaço: com menos, o arquivo recusa imagens. A migração continua depois por si.",
        ),
        serious=True,
    ),
    "disk-full": Kind(
        Words(
            "Disk full: images are refused",
            "Disk ({source}): {free} GB of {total} GB are free. The archive refuses images; modalities must keep them.",
            "Give it more room at once. Then it takes images by itself; let modalities send again what was refused.",
        ),
        Words(
            "Disco cheio: imagens recusadas",
            "Disco ({source}): estão livres {free} GB de {total} GB. O arquivo recusa imagens; os equipamentos têm de"
            " as guardar.",
            "Dê-lhe espaço imediatamente. Depois aceita imagens por si; mande os equipamentos reenviar as recusadas.",
        ),
        serious=True,
    ),
    "process-dead": Kind(
        Words(
            "A process does not run",
            "The process {source} does not do its work ({state}).",
            "`zambezi status` says its last error; the end of its log is in ZAMBEZI_HOME/logs/.",
        ),
        Words(
            "Um processo não funciona",
            "O processo {source} não faz o seu trabalho ({state}).",
            "`zambezi status` diz o seu último erro; o fim do registo está em ZAMBEZI_HOME/logs/.",
        ),
        serious=True,
    ),
    "archive-away": Kind(
        Words(
            "The archive does not answer",
            "Orthanc runs, but does not answer: {reason}",
            "After an unclean stop it takes lost files in again first; ZAMBEZI_HOME/logs/orthanc.log says so.",
        ),
        Words(
            "O arquivo não responde",
            "O Orthanc está a correr, mas não responde: {reason}",
            "Depois de uma paragem brusca recebe primeiro os ficheiros perdidos; ZAMBEZI_HOME/logs/orthanc.log o diz.",
        ),
        serious=True,
    ),
    "database-away": Kind(
        Words(
            "The database is away",
            "The central database can't be written to: {reason}",
            "Images are stored and the worklist is answered all the same. Pages, HL7 and deliveries wait for it.",
        ),
        Words(
            "A base de dados não responde",
            "Não se consegue escrever na base de dados central: {reason}",
            "As imagens guardam-se e a lista de trabalho responde na mesma. Páginas, HL7 e envios esperam por ela.",
        ),
        serious=True,
    ),
    "modality-silent": Kind(
        Words(
            "A modality is silent",
            "{source} sent nothing and asked nothing; the last time: {last}.",
            "Is it switched on, and does its network work? Images may be waiting on it.",
        ),
        Words(
            "Um equipamento está calado",
            "{source} nada enviou e nada perguntou; a última vez: {last}.",
            "Está ligado e com rede? Pode ter imagens à espera.",
        ),
    ),
    "certificate-expiring": Kind(
        Words(
            "A certificate expires",
            "The certificate of the front door ends on {end}; days left: {days}.",
            "Put a new one in its place before: then browsers and modalities refuse the connection.",
        ),
        Words(
            "Um certificado está a expirar",
            "O certificado da porta da frente termina em {end}; dias que faltam: {days}.",
            "Substitua-o antes: depois disso navegadores e equipamentos recusam a ligação.",
        ),
        serious=True,
    ),
    "backup-old": Kind(
        Words(
            "No fresh backup",
            "The last good backup: {last}.",
            "Look why it fails, and let it run now.",
        ),
        Words(
            "Sem cópia de segurança recente",
            "A última cópia de segurança boa: {last}.",
            "Veja por que falha e mande fazê-la já.",
        ),
        serious=True,
    ),
    "collector-away": Kind(
        Words(
            "The audit collector gets nothing",
            "{source} takes nothing of the audit trail since {since} (UTC): {reason}. Entries that wait: {backlog}.",
            "Nothing is lost: all that waits is sent once it is back. Does it run, and do both know the certificates?",
        ),
        Words(
            "O colector de auditoria nada recebe",
            "{source} nada aceita da auditoria desde {since} (UTC): {reason}. Entradas à espera: {backlog}.",
            "Nada se perde: o que espera é enviado quando voltar. Está a correr, e ambos conhecem os certificados?",
        ),
        serious=True,
    ),
    "checkpoint-not-mailed": Kind(
        Words(
            "The audit trail's checkpoints can't be mailed",
            "No checkpoint goes out ({source}) since {since} (UTC): {reason}.",
            "Put the mail server right (Alerts.Mail); until then put a checkpoint on a stick.",
        ),
        Words(
            "Os pontos de controlo da auditoria não seguem por correio",
            "Nenhum ponto de controlo sai ({source}) desde {since} (UTC): {reason}.",
            "Corrija o servidor de correio (Alerts.Mail); até lá ponha um ponto de controlo numa pen.",
        ),
        serious=True,
    ),
}
