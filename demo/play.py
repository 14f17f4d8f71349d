"""`make demo`: start the demo hospital and play it, a line for each step with what was seen and how long it took.

EXIT=1 stops everything after the play and ends with a non-zero code if a step failed. A second call finds
the first play, verifies what it left and plays nothing again; REPLAY=1 plays with new identifiers.
`python -m demo.play down` stops the neighbours (`make down` stops all).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

from demo import archiving, doors, migrating, ordering, reading
from demo.hospital import PASSWORD, PEOPLE, Hospital, Run, StepFailed, new_run, wait_for
from demo.modality import ModalityRefused
from demo.neighbours import Neighbours
from demo.person import PersonStuck
from operations import supervision
from zambezi import clock
from zambezi.account import become_account
from zambezi.environment import REPOSITORY, Environment, EnvironmentFault, take_secrets

STEPS: tuple[tuple[str, str, Callable[[Hospital, Run], str]], ...] = (
    ("1", "the HIS sends patient and order", ordering.his_orders),
    ("2", "the CT asks for its worklist", ordering.ct_gets_its_worklist),
    ("3", "the CT does the exam", ordering.ct_does_the_exam),
    ("4", "the archive records, routes and tells", archiving.archive_routes),
    ("5", "a radiologist reads and signs", reading.radiologist_reports),
    ("6", "a legacy PACS is migrated, with proof", migrating.legacy_is_migrated),
    ("7a", "a stranger gets nothing", doors.strangers_get_nothing),
    ("7b", "a changed byte is named", doors.tampering_is_named),
)

FAILURES = (StepFailed, PersonStuck, ModalityRefused)


def main() -> int:
    """Start, play or verify, print the addresses; the process's exit code."""
    take_secrets(os.environ)
    environment = Environment.read({"ZAMBEZI_HOME": str(REPOSITORY / "data-demo"),
                                    "ZAMBEZI_CONFIG": str(REPOSITORY / "demo" / "config"), **os.environ})  # fmt: skip
    become_account(environment.home)
    if environment.home.exists() and not os.access(environment.home, os.W_OK):
        print(f"{environment.home} belongs to {environment.home.owner()}. Run as root: make -C {REPOSITORY} demo\n"
              "or give this play a folder of its own: ZAMBEZI_HOME=FOLDER make demo", file=sys.stderr)  # fmt: skip
        return 2
    hospital = Hospital(environment, Neighbours.read(environment, os.environ))
    if sys.argv[1:] == ["down"]:
        hospital.neighbours.stop()
        return 0
    stay = os.environ.get("EXIT") != "1"
    begun = time.monotonic()
    failed = False
    try:
        start(hospital)
        bring_people(hospital)
        print(f"the hospital is up after {time.monotonic() - begun:.1f} s")
        run = hospital.load_run()
        if run is None or os.environ.get("REPLAY") == "1":
            run = new_run(clock.now(), hospital.configuration().zambezi.site.zone)
            failed = not play(hospital, run)
        else:
            failed = not verify(hospital, run)
        print(f"{'FAILED' if failed else 'all seen'}, {time.monotonic() - begun:.1f} s in all")
    except (*FAILURES, RuntimeError) as fault:
        print(f"FAILED: {fault}", file=sys.stderr)
        failed = True
    finally:
        if not stay:
            if not supervision.lone(environment).exists():
                hospital.try_zambezi("down")
            hospital.neighbours.stop()
    if stay and not failed:
        print(_addresses(hospital))
    return 1 if failed else 0


def start(hospital: Hospital) -> None:
    """Neighbours and every process."""
    hospital.environment.home.mkdir(parents=True, exist_ok=True)
    hospital.neighbours.start(hospital.environment.ports.dicom)
    if supervision.lone(hospital.environment).exists():
        wait_for("every process", lambda: not hospital.try_zambezi("status").returncode, 120)
    else:
        hospital.zambezi("up", "--detach")


def bring_people(hospital: Hospital) -> None:
    """The demo's accounts, as an administrator makes them."""
    known = hospital.zambezi("user", "list")
    for login, name, role in PEOPLE:
        if login not in known.split():
            hospital.zambezi(
                "user", "add", login, "--name", name, "--role", role, "--password-stdin", said=PASSWORD + "\n"
            )


def play(hospital: Hospital, run: Run) -> bool:
    """Every step in order, until one fails; whether all went well."""
    for number, title, step in STEPS:
        begun = time.monotonic()
        try:
            seen = step(hospital, run)
        except FAILURES as fault:
            print(f"  {number:>2} {title}: FAILED after {time.monotonic() - begun:.1f} s: {fault}")
            return False
        run.done[number] = seen
        print(f"  {number:>2} {title}: {seen} ({time.monotonic() - begun:.1f} s)", flush=True)
    hospital.save_run(run)
    return True


def verify(hospital: Hospital, run: Run) -> bool:
    """What the play left is still there and whole; nothing is played again."""
    checks: tuple[tuple[str, Callable[[Hospital, Run], str]], ...] = (
        ("routes, proofs and audit entries of the exam", archiving.archive_routes),
        ("report and its PDF in the archive", reading.report_is_there),
        ("certificate of the migration", migrating.certificate_holds),
        ("audit chains", lambda hospital, run: hospital.zambezi("audit", "verify").strip().splitlines()[-1]),
    )
    for title, check in checks:
        begun = time.monotonic()
        try:
            seen = check(hospital, run)
        except FAILURES as fault:
            print(f"  {title}: FAILED: {fault}")
            return False
        print(f"  {title}: {seen} ({time.monotonic() - begun:.1f} s)")
    print(f"  the play of {run.study_date} was found and holds; REPLAY=1 plays it again with new identifiers")
    return True


def _addresses(hospital: Hospital) -> str:
    ports = hospital.environment.ports
    logins = ", ".join(login for login, _, _ in PEOPLE)
    return (
        f"\nPages      {hospital.environment.front_url}/   sign in as {logins}; password {PASSWORD}\n"
        f"DICOM      ZAMBEZI at 127.0.0.1:{ports.dicom}; worklist and MPPS at 127.0.0.1:{ports.mpps}\n"
        f"HL7        MLLP at 127.0.0.1:{ports.mllp}\n"
        f"Stop       make down\n"
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EnvironmentFault as fault:
        sys.exit(str(fault))
