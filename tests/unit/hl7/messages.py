"""Messages of our own making, each named after what is odd about it."""

ADT = "\r".join(
    [
        r"MSH|^~\&|HIS|HCM|ZAMBEZI|HCM|20260301083000+0200||ADT^A04^ADT_A01|CTL1|P|2.5.1||||||UNICODE UTF-8",
        "EVN|A04|20260301083000",
        "PID|1||4711^^^HIS^MR~110100123456A^^^BI^NI||Conceição^João^Múcio||19800229|M",
        "PV1|1|O",
        "",
    ]
)

ORM = "\r".join(
    [
        r"MSH|^~\&|HIS|HCM|ZAMBEZI|HCM|20260301083000||ORM^O01^ORM_O01|CTL2|P|2.5.1||||||UNICODE UTF-8",
        "PID|1||4711^^^HIS^MR||Conceição^João||19800229|M",
        "PV1|1|O||||||77^Macuácua^Inês",
        "ORC|NW|PL1|||||^^^202603011000^^S",
        r"OBR|1|PL1||TC1^TC do crânio \T\ órbitas|||||||||Cefaleia|||||ACC1||||||CT",
        "NTE|1||Grávida? Não",
        "ZDS|1.2.840.1.7^Application^DICOM",
        "",
    ]
)

#: Bahmni: one number everywhere, no modality, no times, ZDS last, and a new OBR-18 in a cancel.
BAHMNI_CANCEL = "\r".join(
    [
        r"MSH|^~\&|BahmniEMR|BahmniEMR|PACS||20260301083000||ORM^O01|1772346600000ORD9|P|2.5",
        "PID|||GAN203006||Tembo^Rudo||19900101000000|F",
        "ORC|CA|ORD-305|ORD-305||CA",
        "OBR||||9001^Chest PA||||||||||||||ORD-999",
        "ZDS|1.2.826.0.1.305",
        "",
    ]
)

TWO_ORDERS = ORM.replace("ZDS|1.2.840.1.7^Application^DICOM\r", "ZDS|1.2.840.1.7\r") + "\r".join(
    ["ORC|NW|PL2|||||^^^202603011030^^R", "OBR|2|PL2||US1^Ecografia||||||||||||||ACC2||||||US", "ZDS|1.2.840.1.8", ""]
)
