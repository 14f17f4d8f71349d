"""What /sys says of a volume, read from trees as Linux shows them; what can't be seen is said to be unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from operations import encryption
from operations.encryption import Found, Place
from zambezi.environment import Environment

#: name -> (number, uuid of device mapper, what lies below it)
MACHINE = {
    "sda": ("8:0", "", []),
    "sda1": ("8:1", "", []),
    "sda2": ("8:2", "", []),
    "sdb": ("8:16", "", []),
    "dm-0": ("253:0", "CRYPT-LUKS2-4f1d-luks-sda2", ["sda2"]),
    "dm-1": ("253:1", "LVM-aaaa", ["dm-0"]),
    "dm-2": ("253:2", "LVM-bbbb", ["dm-0", "sdb"]),
    "dm-3": ("253:3", "CRYPT-VERITY-cccc-root", ["sdb"]),
    "dm-4": ("253:4", "CRYPT-PLAIN-swap", ["sda1"]),
    "md0": ("9:0", "", ["sda1", "sdb"]),
    "loop0": ("7:0", "", []),
    "zram0": ("252:0", "", []),
}
MOUNTS = {
    "/": ("8:1", "ext4", "/dev/sda1"),
    "/srv": ("253:1", "ext4", "/dev/mapper/vg-srv"),
    "/mixed": ("253:2", "xfs", "/dev/mapper/vg-mixed"),
    "/verity": ("253:3", "ext4", "/dev/dm-3"),
    "/raid": ("9:0", "ext4", "/dev/md0"),
    "/butter": ("0:45", "btrfs", "/dev/mapper/vg-srv"),
    "/image": ("7:0", "ext4", "/dev/loop0"),
    "/tmp": ("0:50", "tmpfs", "tmpfs"),
    "/nas": ("0:51", "nfs4", "nas:/pacs"),
    "/pool": ("0:52", "zfs", "pool/x"),
    "/layer": ("0:53", "overlay", "overlay"),
    "/hidden": ("8:99", "ext4", "/dev/sdz3"),
    "/with space": ("253:1", "ext4", "/dev/mapper/vg-srv"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine's /sys, /proc and /dev, as far as they are asked."""
    for name, (number, uuid, _) in MACHINE.items():
        folder = tmp_path / "sys/devices/block" / ("sda/" if name.startswith("sda") and name != "sda" else "") / name
        (folder / "slaves").mkdir(parents=True)
        if name[-1].isdigit() and name.startswith("sd"):
            (folder / "partition").write_text(name[-1])
            (folder / "slaves").rmdir()
        if uuid:
            (folder / "dm").mkdir()
            (folder / "dm/uuid").write_text(f"{uuid}\n")
            (folder / "dm/name").write_text("data\n")
        for link in (tmp_path / "sys/dev/block" / number, tmp_path / "sys/class/block" / name):
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(folder)
    for name, (_, _, below) in MACHINE.items():
        for one in below:
            (tmp_path / "sys/class/block" / name / "slaves" / one).symlink_to(tmp_path / "sys/class/block" / one)
    (tmp_path / "sys/class/block/loop0/loop").mkdir()
    (tmp_path / "sys/class/block/loop0/loop/backing_file").write_text("/srv/volume.img\n")
    (tmp_path / "dev/mapper").mkdir(parents=True)
    (tmp_path / "dev/mapper/vg-srv").symlink_to("../dm-1")
    (tmp_path / "proc/self").mkdir(parents=True)
    lines = [
        f"{n} 1 {number} / {point.replace(' ', chr(92) + '040')} rw,relatime shared:{n} - {kind} {source} rw"
        for n, (point, (number, kind, source)) in enumerate(MOUNTS.items(), 20)
    ]
    (tmp_path / "proc/self/mountinfo").write_text("\n".join(lines) + "\n")
    (tmp_path / "proc/swaps").write_text(
        "Filename Type Size Used Priority\n/dev/dm-4 partition 1 0 -2\n/swapfile file 1 0 -3\n"
        "/dev/zram0 partition 1 0 9\n"
    )
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/crypttab").write_text(
        "# name device key options\ndata UUID=1 /etc/keys/data luks\nswap /dev/sda1 /dev/urandom swap\n"
        "root UUID=2 none\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("path", "state", "because"),
    [
        ("/srv/zambezi", "encrypted", "LUKS2, data"),  # LVM on LUKS on a partition
        ("/with space/x", "encrypted", "LUKS2, data"),
        ("/butter/zambezi", "encrypted", "LUKS2, data"),  # a file system with a number of its own
        ("/image/x", "encrypted", "LUKS2, data, by loop0"),  # a file on an encrypted volume
        ("/srv", "encrypted", "LUKS2, data"),
        ("/srvother", "plain", "sda1"),  # no part of /srv
        ("/home/x", "plain", "sda1"),
        ("/mixed/x", "plain", "sdb"),  # a volume on two, one of which is open
        ("/verity/x", "plain", "sdb"),  # checked, not encrypted
        ("/raid/x", "plain", "sda1; sdb"),
        ("/tmp/x", "memory", "tmpfs"),
        ("/nas/x", "unknown", "nfs4 from nas:/pacs: look there"),
        ("/pool/x", "unknown", "ZFS encrypts by itself: `zfs get encryption` says it"),
        ("/layer/x", "unknown", "a container's own layer: look on its host"),
        ("/hidden/x", "unknown", "/sys doesn't show its device in here; look on the host"),
        ("/dev/zram0", "memory", "zram0"),
        ("/dev/mapper/vg-srv", "encrypted", "LUKS2, data"),
        ("/dev/dm-4", "encrypted", "dm-crypt, data"),
    ],
)
def test_a_place_is_as_open_as_the_most_open_of_what_it_lies_on(root: Path, path: str, state: str, because: str):
    assert encryption.look([Place("data", Path(path))], root) == [Found("data", path, state, because)]


def test_swap_and_keys_are_looked_at_and_a_database_elsewhere_is_named(root: Path):
    environment = Environment.read(
        {
            "ZAMBEZI_HOME": "/srv/zambezi",
            "ZAMBEZI_DATABASE_URL": "postgresql://z:secret@db.hcm/z",
            "ZAMBEZI_CONFIG": "/etc/z",
        }
    )
    orthanc = {
        "StorageDirectory": "/raid/storage", "IndexDirectory": "/srv/zambezi/orthanc/index",
        "WebViewer": {"CachePath": "/tmp/cache"}, "PostgreSQL": {"EnableIndex": True, "Host": "localhost"},
    }  # fmt: skip
    found = encryption.look(encryption.places(environment, orthanc, {"ZAMBEZI_TLS_KEY": "/etc/front.key"}, root), root)
    told = [(one.what, one.path, one.state) for one in found if one.what != "temporary"]
    assert told == [
        ("data", "/srv/zambezi", "encrypted"), ("images", "/raid/storage", "plain"), ("viewer", "/tmp/cache", "memory"),
        ("database", "", "unknown"), ("index", "/var/lib/postgresql", "plain"), ("configuration", "/etc/z", "plain"),
        ("certificate", "/etc/front.key", "plain"), ("swap", "/dev/dm-4", "encrypted"), ("swap", "/swapfile", "plain"),
        ("swap", "/dev/zram0", "memory"), ("key", "/etc/keys/data", "plain"),
    ]  # fmt: skip
    assert "images (/raid/storage), Orthanc's index (/var/lib/postgresql); whoever takes" in encryption.complaint(found)
    said = encryption.lines(found)
    assert "! at rest: images /raid/storage: not encrypted (sda1; sdb)" in said
    assert "key that opens a volume /etc/keys/data: not encrypted (sda1)" in said[-1]
    assert "secret" not in "".join(said)


def test_where_nothing_can_be_seen_nothing_is_claimed(tmp_path: Path):
    (found,) = encryption.look([Place("data", Path("/srv"))], tmp_path)
    assert (found.state, encryption.complaint([found])) == ("unknown", "")
