import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = """
import multiprocessing, re, signal, time
from extract.launch.child_process import signals_blocked

def wait():
    time.sleep(60)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    for _ in range(2):
        process = context.Process(target=wait, daemon=True)
        with signals_blocked():
            process.start()
        print(re.search(r"SigBlk:\\s*(\\w+)", open(f"/proc/{process.pid}/status").read())[1])
        process.kill()
    print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="masks are read from /proc")
def test_the_first_child_of_a_program_is_as_deaf_as_the_others(tmp_path: Path) -> None:
    """The standard library unblocks two signals when it starts its resource tracker, along with the first child."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    result = subprocess.run(
        [sys.executable, script], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    first, second, here = result.stdout.splitlines()
    blocked = {number for number in range(1, 65) if int(first, 16) >> (number - 1) & 1}
    assert {1, 2, 10, 15} <= blocked  # SIGHUP, SIGINT, SIGUSR1, SIGTERM
    assert first == second
    assert here == "set()"
