"""The sorts of things that wait for a person: what each is called and means, in both languages, and how urgent it is.

The words stand here and not in a catalogue of the pages, because mail and terminal say them, too. `{...}` are the
facts that whoever raises the item gives with it (zambezi.exceptions.wait); `source` is who it comes from: a peer, a
station, a destination, a project. Standard library only: the configuration names kinds, and the plugin reads that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Words:
    """An item in one language; `what` and `suggestion` may hold facts in braces."""

    title: str
    what: str
    suggestion: str


@dataclass(frozen=True)
class Kind:
    """One sort. `serious`: told of at once. `ruled`: settling it unseen harms nobody, so a rule may."""

    en: Words
    pt: Words
    serious: bool = False
    ruled: bool = False


KINDS: dict[str, Kind] = {
    # --- deliveries
    "delivery-parked": Kind(
        Words(
            "Delivery stopped",
            "A delivery to {source} (rule {rule}) failed and is not tried any more; attempts: {attempts}.",
            "When {source} is well again, let it be tried again.",
        ),
        Words(
            "Envio parado",
            "Um envio para {source} (regra {rule}) falhou e já não é tentado; tentativas: {attempts}.",
            "Quando {source} estiver bem, mande tentar de novo.",
        ),
    ),
    "fetch-parked": Kind(
        Words(
            "Earlier studies not fetched",
            "Earlier studies that rule {rule} wants from {source} did not come, and are not asked for any more; "
            "attempts: {attempts}.",
            "See that {source} knows this archive as a destination of C-MOVE and may store here; then let it be tried "
            "again.",
        ),
        Words(
            "Estudos anteriores que não vieram",
            "Estudos anteriores que a regra {rule} quer de {source} não vieram e já não são pedidos; tentativas: "
            "{attempts}.",
            "Veja se {source} conhece este arquivo como destino de C-MOVE e se pode armazenar aqui; depois mande "
            "tentar de novo.",
        ),
    ),
    "delivery-stranger": Kind(
        Words(
            "Destination not configured",
            "A delivery goes to {source}, which the configuration no longer names.",
            "Name it in orthanc-config/ again and let it be tried again, or cancel the delivery.",
        ),
        Words(
            "Destino sem configuração",
            "Um envio destina-se a {source}, que a configuração já não nomeia.",
            "Volte a nomeá-lo em orthanc-config/ e mande tentar de novo, ou anule o envio.",
        ),
        ruled=True,
    ),
    # --- messages and exam progress
    "message-refused": Kind(
        Words(
            "Message not carried out",
            "A message {message} from {source} could not be carried out; the sender was told (AE).",
            "Put right what the reason names, then: zambezi message retry {number}",
        ),
        Words(
            "Mensagem não executada",
            "Uma mensagem {message} de {source} não pôde ser executada; o remetente foi avisado (AE).",
            "Corrija o que o motivo indica e depois: zambezi message retry {number}",
        ),
    ),
    "mpps-no-order": Kind(
        Words(
            "Exam without an order",
            "{source} began an exam that belongs to no order here.",
            "Find the order and link its study, or register the exam; its images are in the archive.",
        ),
        Words(
            "Exame sem pedido",
            "{source} começou um exame que não pertence a nenhum pedido daqui.",
            "Procure o pedido e ligue-lhe o estudo, ou registe o exame; as imagens estão no arquivo.",
        ),
        ruled=True,
    ),
    "mpps-wrong-entry": Kind(
        Words(
            "Wrong worklist entry",
            "{source} had chosen a wrong worklist entry: order {accession} is scheduled again.",
            "Images made under the wrong entry may be in the archive: compare them with the patient.",
        ),
        Words(
            "Entrada errada da lista de trabalho",
            "Em {source} escolheu-se a entrada errada da lista de trabalho: o pedido {accession} está de novo marcado.",
            "Pode haver no arquivo imagens feitas com a entrada errada: compare-as com o paciente.",
        ),
        serious=True,
    ),
    "mpps-refused": Kind(
        Words(
            "Exam progress against the order",
            "{source} reported progress of the exam {accession} which its order's state doesn't allow.",
            "The exam was performed as the modality says; decide what becomes of the order.",
        ),
        Words(
            "Andamento contrário ao pedido",
            "{source} comunicou do exame {accession} um andamento que o estado do pedido não permite.",
            "O exame foi feito como o equipamento diz; decida o que acontece ao pedido.",
        ),
        ruled=True,
    ),
    # --- storage commitment
    "commitment-failed": Kind(
        Words(
            "Images not safe",
            "{source} asked whether {asked} images are safe in the archive: {failed} are not. It was told so.",
            "Send these images from {source} once more, before they are deleted there. Details: zambezi commitment "
            "show {number}",
        ),
        Words(
            "Imagens não seguras",
            "{source} perguntou se {asked} imagens estão seguras no arquivo: {failed} não estão. Foi-lhe dito.",
            "Envie essas imagens outra vez a partir de {source}, antes que lá sejam apagadas. Pormenores: zambezi "
            "commitment show {number}",
        ),
        serious=True,
    ),
    "commitment-parked": Kind(
        Words(
            "Station not told whether its images are safe",
            "{source} asked whether its images are safe, and the answer can't be brought to it; attempts: {attempts}.",
            "When {source} listens again, or its address and port are put right: zambezi commitment retry {number}",
        ),
        Words(
            "Aparelho sem resposta sobre as suas imagens",
            "{source} perguntou se as suas imagens estão seguras e não se consegue entregar-lhe a resposta; "
            "tentativas: {attempts}.",
            "Quando {source} voltar a escutar, ou o endereço e a porta estiverem certos: zambezi commitment retry "
            "{number}",
        ),
        ruled=True,
    ),
    "commitment-own-port": Kind(
        Words(
            "Commitment asked at the wrong port",
            "{source} asks the archive's own port whether its images are safe. The answer there comes from the index "
            "alone, without a look at the files.",
            "Set storage commitment of {source} to port {port}, where index and files are looked at.",
        ),
        Words(
            "Confirmação pedida na porta errada",
            "{source} pergunta na porta do próprio arquivo se as suas imagens estão seguras. Ali a resposta vem só "
            "do índice, sem se olhar para os ficheiros.",
            "Ponha a confirmação de armazenamento de {source} na porta {port}, onde se vêem índice e ficheiros.",
        ),
        ruled=True,
    ),
    # --- the archive
    "coercion-failed": Kind(
        Words(
            "Image not put right",
            "Images of a study were stored as they came: rule {source} could not be carried out.",
            "Put right what the reason names; zambezi coerce try FILE shows what the rule does. These images stay as "
            "they are: a correction changes them.",
        ),
        Words(
            "Imagem não rectificada",
            "Imagens de um estudo foram guardadas tal como chegaram: não foi possível executar a regra {source}.",
            "Corrija o que o motivo indica; zambezi coerce try FICHEIRO mostra o que a regra faz. Estas imagens ficam "
            "como estão: uma correcção altera-as.",
        ),
    ),
    "node-away": Kind(
        Words(
            "Node away",
            "Node {source} of the archive doesn't answer since {since}. What only its journal knows behind entry "
            "{place} (who looked, who was refused, what it held) is missing here.",
            "The other nodes go on. Bring its machine or its disk back: the missing entries then come by themselves.",
        ),
        Words(
            "Nó ausente",
            "O nó {source} do arquivo não responde desde {since}. Falta aqui o que só o seu diário sabe depois da "
            "entrada {place} (quem viu, quem foi recusado, o que reteve).",
            "Os outros nós continuam. Traga de volta a máquina ou o disco: as entradas em falta chegam então sozinhas.",
        ),
        serious=True,
    ),
    "journal-new": Kind(
        Words(
            "New journal",
            "The archive began a new journal, {source}.",
            "Find out why plugin/journal.db was lost; entries not followed before that are lost.",
        ),
        Words(
            "Diário novo",
            "O arquivo começou um diário novo, {source}.",
            "Descubra por que se perdeu plugin/journal.db; perderam-se as entradas que ainda não tinham sido lidas.",
        ),
        serious=True,
    ),
    "journal-changed": Kind(
        Words(
            "Journal changed",
            "The journal {source} is not the one that was followed: it differs behind entry {place}.",
            "Find out who replaced or changed plugin/journal.db. Following goes on meanwhile.",
        ),
        Words(
            "Diário alterado",
            "O diário {source} não é o que se vinha a ler: difere depois da entrada {place}.",
            "Descubra quem substituiu ou alterou plugin/journal.db. Entretanto a leitura continua.",
        ),
        serious=True,
    ),
    "entry-failed": Kind(
        Words(
            "Journal entry not carried out",
            "What follows from the archive's entry {place} ({event}) could not be carried out.",
            "The entry itself is kept. Look at the study and at the gateway's log.",
        ),
        Words(
            "Entrada do diário não executada",
            "O que resulta da entrada {place} do arquivo ({event}) não pôde ser executado.",
            "A entrada em si está guardada. Veja o estudo e o registo do gateway.",
        ),
    ),
    "trigger-failed": Kind(
        Words(
            "HL7 message not made",
            "No message could be made of entry {place} ({event}) of the chain {source}, though a trigger asks for one.",
            "Look at the trigger and its template in orthanc-config/; `zambezi hl7 try` shows what it would send.",
        ),
        Words(
            "Mensagem HL7 não feita",
            "Não se pôde fazer a mensagem da entrada {place} ({event}) da cadeia {source}, embora uma regra a peça.",
            "Veja a regra e o seu modelo em orthanc-config/; `zambezi hl7 try` mostra o que seria enviado.",
        ),
    ),
    "patient-mismatch": Kind(
        Words(
            "Images of another patient",
            "The images of order {accession} carry another patient ID than the order.",
            "Compare patient and images; the modality may have used a wrong worklist entry.",
        ),
        Words(
            "Imagens de outro paciente",
            "As imagens do pedido {accession} trazem outro número de paciente que o pedido.",
            "Compare o paciente e as imagens; no equipamento pode ter-se usado a entrada errada da lista de trabalho.",
        ),
        serious=True,
    ),
    # --- migration
    "records-waiting": Kind(
        Words(
            "Old records to decide",
            "{count} rows of {source} are not in the RIS as the old system has them.",
            "Its page lists each with the reason; mend the mapping and import again, or decide them.",
        ),
        Words(
            "Registos antigos por decidir",
            "{count} linhas de {source} não estão no RIS como o sistema antigo as tem.",
            "A página da importação lista cada uma com o motivo; corrija o mapeamento e importe de novo, ou decida-as.",
        ),
    ),
    "study-empty": Kind(
        Words(
            "Study without instances at the source",
            "The source names this study, but no instance of it.",
            "Look at the study in the source.",
        ),
        Words(
            "Estudo sem instâncias na origem",
            "A origem nomeia este estudo, mas nenhuma instância dele.",
            "Veja o estudo na origem.",
        ),
        ruled=True,
    ),
    "documents-refused": Kind(
        Words(
            "Old reports not in the archive",
            "{count} documents of {source} could not be put into the archive; they are kept with their reports.",
            "Each report's page says why. Mend what it names, then import again: it is tried once more.",
        ),
        Words(
            "Relatórios antigos fora do arquivo",
            "{count} documentos de {source} não puderam ser postos no arquivo; estão guardados com os seus relatórios.",
            "A página de cada relatório diz porquê. Corrija o que ela indica e importe de novo: volta a ser tentado.",
        ),
    ),
    "extras-left": Kind(
        Words(
            "Not everything beside the images came",
            "Labels, metadata or attachments of studies of project {source} could not be carried.",
            "Each is named, with the reason, on the page of its study and on the certificate.",
        ),
        Words(
            "Nem tudo o que acompanha as imagens veio",
            "Etiquetas, metadados ou anexos de estudos do projecto {source} não puderam ser trazidos.",
            "Cada um consta, com o motivo, na página do seu estudo e no certificado.",
        ),
        ruled=True,
    ),
    "migration-held": Kind(
        Words(
            "Migrated studies are held",
            "{count} studies of project {source} are held: whose they are, or what they are to say, isn't clear.",
            "Decide patient by patient, both sides beside each other.",
        ),
        Words(
            "Estudos a migrar retidos",
            "Estão retidos {count} estudos do projecto {source}: não é claro de quem são ou o que devem dizer.",
            "Decida paciente a paciente, com os dois lados lado a lado.",
        ),
    ),
    "study-divergent": Kind(
        Words(
            "Migrated study differs",
            "A study of project {source} is in the archive, but not as the source has it.",
            "Compare both; the migration's page says what differs.",
        ),
        Words(
            "Estudo migrado difere",
            "Um estudo do projecto {source} está no arquivo, mas não como a origem o tem.",
            "Compare os dois; a página da migração diz o que difere.",
        ),
        serious=True,
    ),
    "study-conflict": Kind(
        Words(
            "Migrated study conflicts with the archive",
            "The archive had other content under the same UIDs before a study of project {source} came.",
            "Look at both sides on the migration's page, and keep the archive's or the source's.",
        ),
        Words(
            "Estudo migrado em conflito com o arquivo",
            "O arquivo já tinha outro conteúdo com os mesmos UID antes de chegar um estudo do projecto {source}.",
            "Veja os dois lados na página da migração e fique com o do arquivo ou o da origem.",
        ),
        serious=True,
    ),
    "study-vanished": Kind(
        Words(
            "Source names less than before",
            "Instances that the source of project {source} named before are no longer there.",
            "Find out in the source whether they were deleted or moved to another study.",
        ),
        Words(
            "A origem nomeia menos do que antes",
            "Instâncias que a origem do projecto {source} nomeava já lá não estão.",
            "Averigue na origem se foram apagadas ou passadas a outro estudo.",
        ),
    ),
    "study-incomplete": Kind(
        Words(
            "Study brought over but for some objects",
            "Of a study of project {source} all but some objects are verified; these can't be had from the source.",
            "Look at them in the source; retry the study, or leave them behind with a reason.",
        ),
        Words(
            "Estudo trazido excepto alguns objectos",
            "De um estudo do projecto {source} tudo está verificado excepto alguns objectos, que a origem não dá.",
            "Veja-os na origem; tente de novo o estudo, ou deixe-os com um motivo.",
        ),
    ),
    "study-parked": Kind(
        Words(
            "Study not brought over",
            "A study of project {source} could not be brought over and is not tried any more.",
            "Look at the study in the source, then let it be tried again.",
        ),
        Words(
            "Estudo por trazer",
            "Um estudo do projecto {source} não pôde ser trazido e já não é tentado.",
            "Veja o estudo na origem e depois mande tentar de novo.",
        ),
    ),
    "study-rejected-images": Kind(
        Words(
            "Images that were taken back at the source",
            "{count} images of a study of project {source} came over, though a rejection note takes them back.",
            "Look at them; reject them here, too, where the note is right.",
        ),
        Words(
            "Imagens que foram retiradas na origem",
            "Vieram {count} imagens de um estudo do projecto {source}, embora uma nota de rejeição as retire.",
            "Veja-as; rejeite-as também aqui, se a nota estiver certa.",
        ),
    ),
    "folder-unread": Kind(
        Words(
            "Files of a source not read",
            "Files of {source} that could not be read or looked into: {unread}. Named by a DICOMDIR, but not there: "
            "{absent}.",
            "zambezi migrate files {source} --unread lists them. Put right what can be put right, then take the "
            "inventory again.",
        ),
        Words(
            "Ficheiros de uma origem por ler",
            "Ficheiros de {source} que não se puderam ler ou abrir: {unread}. Nomeados por um DICOMDIR mas ausentes: "
            "{absent}.",
            "zambezi migrate files {source} --unread mostra-os. Corrija o que puder e volte a fazer o inventário.",
        ),
        serious=True,
    ),
    "project-stopped": Kind(
        Words(
            "Migration stands still",
            "The project {source} was paused: nothing will work before its configuration is changed.",
            "Put the configuration of the source or of ours right, then: zambezi migrate start {source}",
        ),
        Words(
            "Migração parada",
            "O projecto {source} está em pausa: nada resultará antes de se mudar a configuração.",
            "Corrija a configuração da origem ou a nossa e depois: zambezi migrate start {source}",
        ),
    ),
    # --- the house
    "disk-low": Kind(
        Words(
            "Disk getting full",
            "A disk ({source}) is getting full: {free} GB of {total} GB are free.",
            "Give it more room: with less, migration stops, and then the archive refuses images.",
        ),
        Words(
            "Disco a encher",
            "Um disco ({source}) está a encher: estão livres {free} GB de {total} GB.",
            "Dê-lhe mais espaço: com menos, a migração pára e depois o arquivo recusa imagens.",
        ),
        serious=True,
    ),
    "backup-failed": Kind(
        Words("Backup failed", "The backup failed.", "The technical note says why. Then: zambezi backup"),
        Words(
            "Cópia de segurança falhada",
            "A cópia de segurança falhou.",
            "A nota técnica diz porquê. Depois: zambezi backup",
        ),
        serious=True,
    ),
    "audit-broken": Kind(
        Words(
            "Audit trail broken",
            "The audit trail doesn't hold: chain {source}, entry {place}.",
            "Keep the machine's state as it is and find out who or what wrote there; `zambezi audit verify` says more.",
        ),
        Words(
            "Auditoria quebrada",
            "O registo de auditoria não é coerente: cadeia {source}, entrada {place}.",
            "Deixe a máquina como está e descubra quem ou o que lá escreveu; `zambezi audit verify` diz mais.",
        ),
        serious=True,
    ),
    # --- the hold
    "conflict": Kind(
        Words(
            "Conflicting images",
            "An image came again with other content, or under another patient. The newcomer lies in the hold.",
            "Look at both sides in the hold and decide which one counts.",
        ),
        Words(
            "Imagens em conflito",
            "Uma imagem veio outra vez com outro conteúdo, ou com outro paciente. A que veio agora está retida.",
            "Veja os dois lados na retenção e decida qual vale.",
        ),
        serious=True,
    ),
    "no-identity": Kind(
        Words(
            "Image without an identity",
            "An image came without a Study or SOP Instance UID. It lies in the hold.",
            "Look at it in the hold and decide what becomes of it.",
        ),
        Words(
            "Imagem sem identidade",
            "Veio uma imagem sem identificador de estudo ou de instância. Está retida.",
            "Veja-a na retenção e decida o que lhe acontece.",
        ),
        serious=True,
    ),
    "identity": Kind(
        Words(
            "Image with a doubtful identity",
            "An image came without a Patient ID, or with an identifier that DICOM doesn't allow. It lies in the hold, "
            "as the rules ask; its sender was warned.",
            "Compare it with the order in the hold, release it into the archive or discard it; have the device put "
            "right.",
        ),
        Words(
            "Imagem com identidade duvidosa",
            "Veio uma imagem sem identificação do paciente, ou com um identificador que o DICOM não permite. Está "
            "retida, como as regras pedem; o remetente foi avisado.",
            "Compare-a na retenção com o pedido, liberte-a para o arquivo ou descarte-a; mande corrigir o equipamento.",
        ),
        serious=True,
    ),
    "unreadable": Kind(
        Words(
            "Unreadable object",
            "What came can't be read as DICOM. It lies in the hold as it came.",
            "Find out what the sender meant to send; it may have to send again.",
        ),
        Words(
            "Objecto ilegível",
            "O que veio não se consegue ler como DICOM. Está retido tal como veio.",
            "Descubra o que o remetente queria enviar; pode ter de enviar outra vez.",
        ),
        serious=True,
    ),
    "quarantine": Kind(
        Words(
            "In quarantine",
            "An object was put into the hold by a rule of quarantine.",
            "Look at it in the hold and decide what becomes of it.",
        ),
        Words(
            "Em quarentena",
            "Um objecto foi retido por uma regra de quarentena.",
            "Veja-o na retenção e decida o que lhe acontece.",
        ),
    ),
    "found": Kind(
        Words(
            "Object without an account in the hold",
            "A crash left a file in the hold that nobody had accounted for.",
            "Look at it in the hold, then release or discard it.",
        ),
        Words(
            "Objecto sem registo na retenção",
            "Uma falha deixou na retenção um ficheiro de que ninguém tinha dado conta.",
            "Veja-o na retenção e depois liberte-o ou elimine-o.",
        ),
    ),
    "damaged": Kind(
        Words(
            "Damaged file in the hold",
            "A file in the hold is missing or no longer has the bytes that were put there.",
            "Look for a copy in the backups; the disk may be failing.",
        ),
        Words(
            "Ficheiro retido danificado",
            "Um ficheiro retido falta ou já não tem os bytes com que foi guardado.",
            "Procure uma cópia nas cópias de segurança; o disco pode estar a falhar.",
        ),
        serious=True,
    ),
    "discard-asked": Kind(
        Words(
            "Discarding waits for a second person",
            "Somebody asked that a held object be discarded.",
            "Another person must look at it and confirm or refuse.",
        ),
        Words(
            "Descarte à espera de segunda pessoa",
            "Alguém pediu que um objecto retido fosse descartado.",
            "Outra pessoa tem de o ver e confirmar ou recusar.",
        ),
    ),
    "second-copy": Kind(
        Words(
            "One image in two places",
            "The same image is in the archive twice, under another patient, study or series. The archive keeps both.",
            "Find out which of the two the image belongs to, and correct or delete the other.",
        ),
        Words(
            "Uma imagem em dois lugares",
            "A mesma imagem está duas vezes no arquivo, com outro paciente, estudo ou série. O arquivo guarda as duas.",
            "Descubra a qual dos dois pertence a imagem e corrija ou elimine a outra.",
        ),
        serious=True,
    ),
    # --- corrections
    "parked": Kind(
        Words(
            "Correction stopped",
            "A correction can't be carried out; nothing was changed.",
            "Once the cause is gone, let it be tried again, or cancel it.",
        ),
        Words(
            "Correcção parada",
            "Uma correcção não pode ser executada; nada foi alterado.",
            "Resolvida a causa, mande tentar de novo, ou anule-a.",
        ),
    ),
    "stuck": Kind(
        Words(
            "Correction half done",
            "A correction is half done and can't go on. Every image is in the hold; it is tried again by itself.",
            "See that the archive runs, has room on its disk and takes images.",
        ),
        Words(
            "Correcção a meio",
            "Uma correcção está a meio e não avança. Todas as imagens estão retidas; tenta-se de novo.",
            "Verifique que o arquivo funciona, tem espaço no disco e aceita imagens.",
        ),
        serious=True,
    ),
    "came-late": Kind(
        Words(
            "Images came during a correction",
            "Images came into the old study while a correction was carried out.",
            "Look at them, and correct them too if they belong to it.",
        ),
        Words(
            "Imagens chegadas durante uma correcção",
            "Chegaram imagens ao estudo antigo enquanto se fazia uma correcção.",
            "Veja-as e corrija-as também, se lhe pertencem.",
        ),
        serious=True,
    ),
    "unclear-patient": Kind(
        Words(
            "Studies of an unclear patient",
            "Studies carry a patient ID that several issuers gave out, and no order says whose they are.",
            "Look at each of them and reassign those that belong to the merged patient.",
        ),
        Words(
            "Estudos de paciente incerto",
            "Há estudos com um número de paciente que várias entidades emitiram, e nenhum pedido diz de quem são.",
            "Veja cada um e reatribua os que pertencem ao paciente unificado.",
        ),
        serious=True,
    ),
    "two-reports": Kind(
        Words(
            "Two reports after a correction",
            "A study became another one, and both have reports.",
            "The reports of the old study were left under it. Decide which report counts and write an addendum.",
        ),
        Words(
            "Dois relatórios depois de uma correcção",
            "Um estudo passou a ser outro, e ambos têm relatórios.",
            "Os relatórios do estudo antigo ficaram nele. Decida qual vale e escreva uma adenda.",
        ),
        serious=True,
    ),
    "signed-report": Kind(
        Words(
            "Signed report of another patient",
            "A signed report went with its images to another patient or order; its PDF still names the first.",
            "Write an addendum, so that a signed version names the right patient, and tell those who got the first.",
        ),
        Words(
            "Relatório assinado de outro paciente",
            "Um relatório assinado foi com as imagens para outro paciente ou pedido; o PDF ainda nomeia o primeiro.",
            "Escreva uma adenda, para que uma versão assinada nomeie o paciente certo, e avise quem tem a primeira.",
        ),
        serious=True,
    ),
    # --- deletions
    "deletion-parked": Kind(
        Words(
            "Deletion stopped",
            "A deletion has stopped.",
            "Look at the study. Then try the deletion again, withdraw it, or restore what is gone.",
        ),
        Words(
            "Eliminação parada",
            "Uma eliminação parou.",
            "Veja o estudo. Depois tente de novo a eliminação, retire-a, ou reponha o que já saiu.",
        ),
    ),
    "deletion-stopped": Kind(
        Words(
            "Deletion stopped by a legal hold",
            "A legal hold stopped a deletion after some images were gone.",
            "Restore what is gone; its copies are in the hold.",
        ),
        Words(
            "Eliminação parada por dever legal",
            "Um dever legal de conservação parou uma eliminação quando já tinham saído imagens.",
            "Reponha o que saiu; as cópias estão retidas.",
        ),
        serious=True,
    ),
    "deletion-newcomers": Kind(
        Words(
            "Images came after a deletion was decided",
            "Images of a deleted study came after two people had decided; they stay in the archive.",
            "Look at them; if they are to go, too, ask for it anew.",
        ),
        Words(
            "Imagens chegadas depois de decidida a eliminação",
            "Chegaram imagens de um estudo eliminado depois de duas pessoas terem decidido; ficam no arquivo.",
            "Veja-as; se também devem sair, peça-o de novo.",
        ),
    ),
    "deletion-unordered": Kind(
        Words(
            "Images gone without an order",
            "Images left the archive and nobody had ordered it.",
            "Find out who reached Orthanc or its files. Bring the images back from the sender or the backup.",
        ),
        Words(
            "Imagens desaparecidas sem ordem",
            "Saíram imagens do arquivo sem que ninguém o tivesse ordenado.",
            "Descubra quem chegou ao Orthanc ou aos ficheiros. Traga as imagens do remetente ou da cópia.",
        ),
        serious=True,
    ),
    # --- neighbours that are paused
    "configuration": Kind(
        Words(
            "Neighbour paused: configuration",
            "A neighbour is paused: nothing will work before a setting is changed, here or there.",
            "Put that right, then let it go on.",
        ),
        Words(
            "Vizinho em pausa: configuração",
            "Um vizinho está em pausa: nada resultará antes de se mudar a configuração, aqui ou lá.",
            "Corrija isso e depois mande continuar.",
        ),
    ),
    "disk": Kind(
        Words(
            "Queue paused: disk",
            "A queue waits because a disk of ours is full or failing.",
            "Give it room or another disk, then let it go on.",
        ),
        Words(
            "Fila em pausa: disco",
            "Uma fila espera porque um disco nosso está cheio ou a falhar.",
            "Dê-lhe espaço ou outro disco e depois mande continuar.",
        ),
        serious=True,
    ),
    # --- signing keys
    "key-revoked": Kind(
        Words(
            "Signing key revoked",
            "Signing key {source} is revoked: nothing that it signed may be trusted.",
            "Tell everybody who holds what it signed, and hand them the new key's fingerprint on paper.",
        ),
        Words(
            "Chave de assinatura revogada",
            "A chave de assinatura {source} foi revogada: nada do que assinou merece confiança.",
            "Avise quem tem o que ela assinou e entregue, em papel, a impressão digital da chave nova.",
        ),
        serious=True,
    ),
    "key-restarted": Kind(
        Words(
            "Signing began anew",
            "The signing key had to begin anew as {source}.",
            "Tell everybody who holds what was signed, and hand them the new key's fingerprint on paper.",
        ),
        Words(
            "Assinatura recomeçada",
            "A chave de assinatura teve de recomeçar como {source}.",
            "Avise quem tem o que foi assinado e entregue, em papel, a impressão digital da chave nova.",
        ),
        serious=True,
    ),
    "key-lacking": Kind(
        Words(
            "Register of keys set back",
            "The register of signing keys lacks what the audit trail says of key {source} ({change}).",
            "Was an old copy of signing/ put back? Revoke again what was revoked.",
        ),
        Words(
            "Registo de chaves recuado",
            "Ao registo das chaves de assinatura falta o que a auditoria diz da chave {source} ({change}).",
            "Repôs-se uma cópia antiga de signing/? Volte a revogar o que estava revogado.",
        ),
        serious=True,
    ),
    # --- access
    "door-open": Kind(
        Words(
            "A door stands open",
            "The self-check got in where nobody may.",
            "Put right what the reason names, and try again: zambezi self-check",
        ),
        Words(
            "Uma porta está aberta",
            "A autoverificação entrou onde ninguém pode entrar.",
            "Corrija o que o motivo indica e volte a tentar: zambezi self-check",
        ),
        serious=True,
    ),
    "glass-broken": Kind(
        Words(
            "Study opened in an emergency",
            "{source} opened a study outside of their part of the site, as an emergency.",
            "Ask whether it was needed; if not, talk with the person and their head.",
        ),
        Words(
            "Estudo aberto numa emergência",
            "{source} abriu um estudo fora da sua parte da instituição, como emergência.",
            "Pergunte se foi necessário; se não, fale com a pessoa e com a chefia.",
        ),
    ),
}  # fmt: skip

#: The only kinds that a rule may settle: the images, orders or studies they speak of are kept and stay where they are.
#: Never a conflict, damage, the audit trail, a patient who may be the wrong one, or a copy that was not made.
RULED = frozenset(name for name, kind in KINDS.items() if kind.ruled)


def words(kind: str, language: str, facts: Mapping[str, Any]) -> Words | None:
    """The item in words of `language` (pt or en); None where the kind is unknown or a fact is missing."""
    known = KINDS.get(kind)
    if known is None:
        return None
    said = known.pt if language == "pt" else known.en
    try:
        return Words(said.title, said.what.format_map(facts), said.suggestion.format_map(facts))
    except KeyError:
        return None


def title(kind: str, language: str) -> str:
    """What the kind is called; the bare word where it is unknown."""
    known = KINDS.get(kind)
    return (known.pt if language == "pt" else known.en).title if known else kind
