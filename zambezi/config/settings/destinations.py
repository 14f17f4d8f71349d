"""Where images go: by which way, how they are changed on the way out, what counts as delivered."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from zambezi.config.settings.patience import Patience
from zambezi.config.settings.section import Section

Proof = Literal["committed", "found", "acknowledged"]
#: Value representations (PS3.5 6.2) that hold text a person can write into JSON.
_TEXT = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UT"))
#: Proof and pixels rest on them.
_UNTOUCHED = frozenset(
    ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SpecificCharacterSet")
)


class DestinationTls(Section):
    """DICOM over TLS 1.2 or 1.3 (PS3.15 B.12), from the gateway itself. Files: below ZAMBEZI_HOME unless absolute."""

    ca_file: str = Field("", description="Certificate authority that the receiver must show, PEM; empty: no TLS.")
    certificate_file: str = Field("", description="Our own certificate, PEM, where the receiver wants to see one.")
    key_file: str = Field("", description="Its private key, PEM.")
    host: str = Field("", description="Where it listens for TLS; empty: the Host of DicomModalities.")
    port: int = Field(2762, ge=1, le=65535, description="Its port for TLS.")
    server_name: str = Field("", description="The name its certificate must carry; empty: the authority alone counts.")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("CertificateFile goes with KeyFile")
        if self.certificate_file and not self.ca_file:
            raise ValueError("CertificateFile goes with CaFile: without it nobody knows who is sent to")
        return self


class Destination(Patience):
    kind: Literal["dicom", "peer"] = Field(
        "dicom", description="dicom: a name of DicomModalities; peer: another Orthanc, a name of OrthancPeers."
    )
    proof: Proof = Field(
        "found",
        description="What counts as delivered: the receiver committed itself to each instance (storage commitment), "
        "every SOP Instance UID answered to a query, or each C-STORE success.",
    )
    commitment_minutes: float = Field(
        60, ge=0.01, le=7 * 1440, description="Proof committed: it is asked again when it has said nothing for so long."
    )
    parallel: int = Field(1, ge=1, le=16, description="So many studies are sent to it at once.")
    aet: str = Field(
        "",
        pattern=r"^[\x21-\x5b\x5d-\x7e]{0,16}$",
        description="The AE title by which we call it; empty: Orthanc's own.",
    )
    tls: DestinationTls = Field(DestinationTls(), description="DICOM over TLS.")
    transcode: Literal["", "uncompressed", "jpeg-ls", "jpeg-2000"] = Field(
        "", description="Pixels go out so, without loss; empty: as they are stored."
    )
    set_: dict[str, str] = Field(
        default_factory=dict, alias="Set", description="Attributes by DICOM keyword, with the text they go out with."
    )
    remove: tuple[str, ...] = Field((), description="DICOM keywords of attributes that don't go out.")
    deidentify: bool = Field(
        False, description="Images go out without what tells the patient (PS3.15 annex E), under other UIDs."
    )
    alternate: str = Field(
        "", description="Another destination, which gets what waits while this one fails; empty: none."
    )
    alternate_after: int = Field(10, ge=1, le=1000, description="... after so many failures in a row.")

    @field_validator("remove", "set_")
    @classmethod
    def _keywords_are_known(cls, value: dict[str, str] | tuple[str, ...]) -> dict[str, str] | tuple[str, ...]:
        # Asked for by those alone who name keywords: Orthanc's plugin reads this, too.
        from pydicom import config, datadict
        from pydicom.dataelem import DataElement

        for keyword in value:
            tag = datadict.tag_for_keyword(keyword)
            if tag is None:
                raise ValueError(f'no DICOM attribute has the keyword "{keyword}", such as InstitutionName')
            if keyword in _UNTOUCHED or tag >> 16 in (0x0002, 0x7FE0):
                raise ValueError(f"{keyword} goes out as it is: the proof of delivery, or the image, rests on it")
            if isinstance(value, dict) and datadict.dictionary_VR(tag) not in _TEXT:
                raise ValueError(f"{keyword} holds no text; allowed in Set are attributes that do")
            if isinstance(value, dict):
                DataElement(tag, datadict.dictionary_VR(tag), value[keyword], validation_mode=config.RAISE)
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.kind == "peer" and (self.proof == "committed" or self.is_sent_by_us or self.parallel > 1):
            raise ValueError(
                "Kind peer goes with Proof found or acknowledged, and without Parallel, Aet, Tls, Transcode, Set, "
                "Remove, Deidentify and KilobitsPerSecond: Orthanc itself sends to it"
            )
        return self

    @property
    def is_changed(self) -> bool:
        """Whether what goes out differs from what is stored."""
        return bool(self.transcode or self.set_ or self.remove or self.deidentify)

    @property
    def is_sent_by_us(self) -> bool:
        """Whether the gateway sends itself; else Orthanc does, which is faster and changes no byte."""
        capped = any(window.kilobits_per_second for window in self.windows)
        return bool(self.is_changed or self.aet or self.tls.ca_file or capped)
