"""Logs as text or JSON, with the object they are about, and nothing that looks like a secret."""

import logging
import re
import sys
from typing import Any, Literal, TextIO

from pythonjsonlogger.json import JsonFormatter

LogFormat = Literal["text", "json"]

# PEM blocks, bearer tokens and long base64 runs (keys, Secret values); names, ids and hashes in hex pass.
_SECRETS = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(-----END [A-Z0-9 ]*PRIVATE KEY-----|$)"
    r"|(?i:bearer)\s+[A-Za-z0-9._~+/=-]+"
    r"|eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
    r"|\bsk_[A-Za-z0-9]+\.[A-Za-z0-9_-]+"
    r"|(?=[A-Za-z0-9+/]*[A-Z])(?=[A-Za-z0-9+/]*[a-z])(?=[A-Za-z0-9+/]*[0-9])[A-Za-z0-9+/]{64,}={0,2}",
    re.DOTALL,
)
REDACTED = "[redacted]"

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def redact(text: str) -> str:
    """Replace whatever looks like a key, a token or a Secret's value."""
    return _SECRETS.sub(REDACTED, text)


class _Redacting(logging.Filter):
    """Redacts a record before any formatter sees it, tracebacks included."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), None
        for name, value in vars(record).items():
            if name not in _STANDARD and isinstance(value, str):
                setattr(record, name, redact(value))
        if record.exc_info and not record.exc_text:
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        record.exc_info = None  # a formatter would quote the exception itself again
        return True


class _Text(logging.Formatter):
    """`time LEVEL object: message`, as a person reads it."""

    def format(self, record: logging.LogRecord) -> str:
        about = getattr(record, "object", "")
        extra = " ".join(
            f"{name}={value}"
            for name, value in vars(record).items()
            if name not in _STANDARD and name != "object" and not name.startswith(("k8s", "color", "settings"))
        )
        line = f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')} {record.levelname:<7} "
        line += f"{about}: " if about else ""
        line += record.getMessage() + (f" ({extra})" if extra else "")
        return line + (f"\n{record.exc_text}" if record.exc_text else "")


class _Handler(logging.StreamHandler[TextIO]):
    """Says no more than that a line was lost when it cannot be written: the usual report quotes the arguments."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the standard library's name
        if sys.__stderr__ is not None:
            sys.__stderr__.write(f"a log line from {record.name} could not be written\n")


def configure(log_format: LogFormat = "text", level: str = "INFO") -> None:
    """Send every log line to standard error; kopf's own chatter about objects stays out, because it quotes their bodies."""
    handler = _Handler(sys.stderr)
    formatter: Any = (
        JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields={"levelname": "level"})
        if log_format == "json"
        else _Text()
    )
    handler.setFormatter(formatter)
    handler.addFilter(_Redacting())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("kopf", "aiohttp.access", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("kopf._core.reactor.orchestration", "kopf._core.reactor.running"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what ends a watch is told once, by whoever started it
