"""Tell whether a process of the live stack is well: `python -m lab.stack.healthy ROLE FOLDER`.

For health checks of containers, so it starts fast: it imports nothing of ours. Exit code 0: its
last word on itself (lab.stack.plan.Status) is fresh and says that it runs, or that its work is
done. 1: anything else, and one line says what.
"""

import json
import sys
import time
from pathlib import Path

AGE_S_MAX = 5.0  # a process tells of itself about once a second
WELL = ("running", "complete")  # values of lab.stack.plan.State


def trouble(role: str, folder: Path, now_s: float) -> str:
    """Return what is wrong with a process, in one line; nothing if it is well.

    Args:
        role: as in the name of its status file.
        folder: of the live stack.
        now_s: seconds since 1970.
    """
    path = folder / f"{role}.status.json"
    try:
        age_s = now_s - path.stat().st_mtime
        word = json.loads(path.read_bytes())
    except OSError as error:
        return f"{role}: expected a word of it, found {error.strerror}"
    except ValueError:
        return f"{role}: expected JSON in {path}, found something else"
    state = word.get("state") if isinstance(word, dict) else None
    if state not in WELL:
        return f"{role}: expected {' or '.join(WELL)}, found {state}"
    if state != "complete" and age_s > AGE_S_MAX:  # one that is done says no more
        return f"{role}: expected a word in the last {AGE_S_MAX:g} s, found one {age_s:.0f} s old"
    return ""


def main() -> int:
    """Run the command line; return the exit code."""
    if len(sys.argv) != 3:
        sys.stderr.write("usage: python -m lab.stack.healthy ROLE FOLDER\n")
        return 2
    found = trouble(sys.argv[1], Path(sys.argv[2]), time.time())
    if found:
        sys.stderr.write(found + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
