"""Options of the whole test suite."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-goldens",
        action="store_true",
        dest="rewrite_goldens",
        help="write the outputs of tests/golden anew instead of comparing them",
    )
