"""What the command line says on stderr while it runs: lines for people, or JSON for those who collect logs."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

from foredraft.errors import UnknownNameError
from foredraft.protocol.events import LOG_OF_SESSIONS
from foredraft.text.inert import inert

FORMATS: Final = ("text", "json")
_FOR_PEOPLE: Final = "%(levelname)s %(name)s: %(message)s"


class Lines(logging.Formatter):
    """Lines for people, in which nothing that a peer said acts on their terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line."""
        return inert(super().format(record))


class JsonLines(logging.Formatter):
    """One JSON object to a line: time (UTC), level, logger, message, and the ``fields`` of records that have some."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line."""
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        said |= getattr(record, "fields", {})
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


def set_up_logs(log_format: str, *, verbose: bool) -> None:
    """Say warnings, with ``verbose`` more; as JSON also each session and refusal. Raises UnknownNameError."""
    if log_format not in FORMATS:
        raise UnknownNameError("log format", log_format, FORMATS)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else Lines(_FOR_PEOPLE))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler], force=True)
    if log_format == "json":
        logging.getLogger(LOG_OF_SESSIONS).setLevel(logging.INFO)
    if not verbose:
        for chatty in ("torchao", "torch.utils._pytree"):  # which tell of kernels that nobody asked for
            logging.getLogger(chatty).setLevel(logging.ERROR)
