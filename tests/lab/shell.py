"""The command line in this process: what a shell would see of it, without starting Python anew."""

import io
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from lab.cli import main

ROOT = Path(__file__).parent.parent.parent


def omnimargin(*words: str, expect: int | None = 0) -> CompletedProcess[str]:
    """Run a command in the project's folder; `expect` is its exit code."""
    out, err = io.StringIO(), io.StringIO()
    terminated = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["omnimargin", *words])
        patch.chdir(ROOT)
        try:
            with pytest.raises(SystemExit) as left:
                main()
        finally:
            signal.signal(signal.SIGTERM, terminated)
    assert isinstance(left.value.code, int | None)
    done = CompletedProcess(words, left.value.code or 0, out.getvalue(), err.getvalue())
    assert expect is None or done.returncode == expect, done.stderr
    assert "Traceback" not in done.stderr
    return done
