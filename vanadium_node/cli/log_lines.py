"""What a daemon's log lines look like: for people, or one JSON object a line for programs."""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Final

from vanadium_node.config import LogFormat, LogLevel

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; anything else are the fields of the event."""

_CONTROLS: Final = {number: f"\\x{number:02x}" for number in (*range(32), 127)} | {9: "\t", 10: "\\n", 13: "\\r"}


def set_up_logging(log_format: LogFormat = LogFormat.TEXT, level: LogLevel = LogLevel.INFO) -> None:
    """Log to standard error: this project at that level, libraries from `info` on at most."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if log_format is LogFormat.JSON else TextLines())
    chosen = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=max(chosen, logging.INFO), handlers=[handler])
    logging.getLogger("vanadium_node").setLevel(chosen)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class TextLines(logging.Formatter):
    """Time in UTC, level, message. What a peer chose cannot begin a line of its own; only a traceback has several."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = f"{_time(record)} {record.levelname} {record.getMessage().translate(_CONTROLS)}"
        return f"{line}\n{_traceback(record)}" if record.exc_info else line


class JsonLines(logging.Formatter):
    """An object with `time`, `level`, `logger`, `message`, the event's own fields, and `traceback` after a bug."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD and name not in line}
        if record.exc_info:
            line["traceback"] = _traceback(record)
        return json.dumps(line, default=str, ensure_ascii=False)


def _traceback(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    return "" if error is None else "".join(traceback.format_exception(error)).rstrip()
