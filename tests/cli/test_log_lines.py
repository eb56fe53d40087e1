"""Log lines: for people and for programs, and what a peer cannot do to them."""

import json
import logging
from typing import Any

import pytest

from vanadium_node.cli.log_lines import JsonLines, TextLines

FIELDS: dict[str, Any] = {
    "method": "Get",
    "code": "no-access",
    "local_names": ["root:shop"],
    "peer": "root:guest at 10.0.0.1:2",
}


def record(message: str, *arguments: object, error: Exception | None = None, **fields: object) -> logging.LogRecord:
    """Return an event of one second after the epoch."""
    made = logging.LogRecord("vanadium_node.rpc", logging.INFO, __file__, 1, message, arguments, None)
    made.created = 1.25
    if error is not None:
        made.exc_info = (type(error), error, error.__traceback__)
    vars(made).update(fields)
    return made


def test_a_json_line_has_the_events_fields() -> None:
    """Besides time, level, logger and message, and nothing of Python's."""
    line = json.loads(JsonLines().format(record("refused %s: %s", "Get", "why", **FIELDS)))
    assert line == {
        "time": "1970-01-01T00:00:01.250+00:00",
        "level": "info",
        "logger": "vanadium_node.rpc",
        "message": "refused Get: why",
        **FIELDS,
    }


@pytest.mark.parametrize(
    "message", ["a\nb", "a\r\n2026-01-01T00:00:00 INFO forged", "\x1b[2J", "\u2028", '"', "\ud800"]
)
def test_an_event_is_one_line(message: str) -> None:
    """Whatever a peer put into it; terminals are not told anything either."""
    text = TextLines().format(record("%s", message))
    assert text.startswith("1970-01-01T00:00:01.250+00:00 INFO ")
    assert not set(text) & set("\n\r\x1b")
    line = JsonLines().format(record("%s", message))
    assert not set(line) & set("\n\r\x1b")
    assert json.loads(line)["message"] == message


def test_fields_do_not_replace_the_standard_ones() -> None:
    """And what JSON does not know is written as text."""
    line = json.loads(JsonLines().format(record("x", level="forged", logger="forged", other={1})))
    assert (line["level"], line["logger"], line["other"]) == ("info", "vanadium_node.rpc", "{1}")


def test_a_bug_has_its_traceback() -> None:
    """One field of the JSON line; lines of their own for people."""
    try:
        raise ZeroDivisionError("of mine")
    except ZeroDivisionError as error:
        event = record("Get failed", error=error)
    assert "ZeroDivisionError: of mine" in json.loads(JsonLines().format(event))["traceback"]
    assert TextLines().format(event).splitlines()[-1] == "ZeroDivisionError: of mine"
