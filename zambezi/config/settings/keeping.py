"""What is kept apart, what leaves the archive, and copies of everything."""

from __future__ import annotations

from datetime import time

from pydantic import Field

from zambezi.config.settings.section import Section, Window


class Deletion(Section):
    """Images leave the archive by two people's decision and after a wait; whole copies stay in the hold."""

    waiting_hours: float = Field(
        72, ge=0, le=24 * 60, description="A deletion that two people want is carried out so long after the second."
    )
    keep_days: int = Field(
        365, ge=1, le=36500, description="For so long the hold keeps whole copies, which can be restored."
    )


class Hold(Section):
    keep_days: float = Field(
        365, ge=30, le=36500, description="So long the hold keeps the old copy of what was corrected or deleted."
    )


class Backup(Section):
    """Where backups go, when, and how long they are kept."""

    repository: str = Field(
        "",
        pattern=r"^(|/.+|sftp:[^\s/:]+:.+)$",
        description="A folder on another disk, such as /mnt/backup/zambezi, or sftp:USER@HOST:/folder. Empty: none.",
    )
    windows: tuple[Window, ...] = Field(
        (Window(from_=time(1, 0), to=time(5, 0)),),
        min_length=1,
        description="When the backup of the day begins, 01:00 to 05:00 unless given; KilobitsPerSecond caps it.",
    )
    keep_daily: int = Field(7, ge=1, le=3660, description="The last backup of so many days is kept.")
    keep_weekly: int = Field(5, ge=0, le=520, description="The last backup of so many weeks is kept.")
    keep_monthly: int = Field(12, ge=0, le=120, description="The last backup of so many months is kept.")
    read_all_in_days: int = Field(
        30, ge=1, le=365, description="Each backup reads back one part of so many; after so many days all was read."
    )
