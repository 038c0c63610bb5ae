"""What programs in pods write: each line is one object, whoever says it."""

import json
import os
import subprocess
import sys

import pytest

PRELUDE = "from gwanmun.app.logs import configure_program_logs; configure_program_logs('json')\n"


def said(program: str) -> list[dict[str, str]]:
    ran = subprocess.run([sys.executable, "-c", PRELUDE + program], capture_output=True, text=True, check=False, timeout=60)
    return [json.loads(line) for line in ran.stderr.splitlines()]


def test_what_libraries_say_is_an_object() -> None:
    (line,) = said("import logging; logging.getLogger('uvicorn.error').warning('Invalid %s', 'request')")
    assert (line["event"], line["logger"], line["message"], line["level"]) == (
        "library_message",
        "uvicorn.error",
        "Invalid request",
        "warning",
    )


def test_what_a_task_dies_of_is_an_object() -> None:
    (line,) = said("""
import asyncio
async def main():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0.01)
asyncio.run(main())
""")
    assert line["logger"] == "asyncio"
    assert "ZeroDivisionError" in line["exception"]


def test_what_ends_the_program_is_an_object() -> None:
    (line,) = said("1 / 0")
    assert (line["event"], line["message"]) == ("crashed", "division by zero")
    assert "ZeroDivisionError" in line["exception"]


@pytest.mark.parametrize(("given", "found"), [({}, "NONE"), ({"GRPC_VERBOSITY": "INFO"}, "INFO")])
def test_grpc_says_nothing_on_its_own_unless_it_is_asked_to(given: dict[str, str], found: str) -> None:
    program = PRELUDE + "import os, sys; assert 'grpc' not in sys.modules; print(os.environ['GRPC_VERBOSITY'])"
    kept = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**kept, **given})
    assert ran.stdout.strip() == found


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_mistake_at_the_start_is_told_in_the_form_that_was_asked_for(form: str) -> None:
    command = ["controller", "--log-format", form, "--certificate-issuer", "me"]
    program = "from gwanmun.cli.main import main; main()"
    ran = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    said = '--certificate-issuer "me" is not KIND/NAME, such as ClusterIssuer/letsencrypt'
    assert (json.loads(line)["message"] if form == "json" else line.removeprefix("gwanmun: ")) == said
