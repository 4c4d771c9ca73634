"""What form an answer is asked to have: OpenAI's ``response_format``, and vLLM's ``structured_outputs``."""

import json
from typing import Final

from foredraft.errors import ConfigError
from foredraft.openai_api.errors import invalid
from foredraft.openai_api.fields import Fields, strings
from foredraft.text.constraint import GRAMMAR, JSON_SCHEMA, REGEX, Constraint, constraint_of

_MOST_CHOICES: Final = 256
_OURS: Final = {"json": JSON_SCHEMA, "regex": REGEX, "grammar": GRAMMAR}


def answer_format(fields: Fields) -> Constraint | None:
    """The constraint that a request asks for, if any. Raises ApiError."""
    found = [
        one for one in (_response_format(fields.take("response_format", dict)), _structured_outputs(fields)) if one
    ]
    if len(found) > 1:
        raise invalid("response_format and structured_outputs are two constraints: give one", "structured_outputs")
    return found[0] if found else None


def _response_format(said: dict[str, object] | None) -> Constraint | None:
    if said is None:
        return None
    fields = Fields(said, "response_format")
    kind = fields.take("type", str)
    if kind == "text":
        fields.end()
        return None
    if kind == "json_object":
        fields.end()
        return constraint_of(json_schema={"type": "object"})
    if kind != JSON_SCHEMA:
        reason = f"response_format.type must be text, json_object or json_schema, not {kind!r}"
        raise invalid(reason, "response_format.type", "unsupported_value")
    inner = Fields(fields.take(JSON_SCHEMA, dict), "response_format.json_schema")
    fields.end()
    inner.ignore("name", "description", "strict")  # it is always strict
    schema = inner.take("schema", dict)
    inner.end()
    return _constraint(JSON_SCHEMA, {} if schema is None else schema, "response_format.json_schema.schema")


def _structured_outputs(fields: Fields) -> Constraint | None:
    said = fields.take("structured_outputs", dict)
    if said is None:
        return None
    inner = Fields(said, "structured_outputs")
    given = [(kind, value) for name, kind in _OURS.items() if (value := inner.any(name)) is not None]
    if choices := strings(inner.any("choice"), "structured_outputs.choice", _MOST_CHOICES):
        given.append((GRAMMAR, "start: " + " | ".join(map(json.dumps, choices))))
    inner.end()
    if len(given) != 1:
        raise invalid("structured_outputs must have one of json, regex, grammar and choice", "structured_outputs")
    return _constraint(*given[0], "structured_outputs")


def _constraint(kind: str, said: object, param: str) -> Constraint:
    if kind == JSON_SCHEMA and isinstance(said, dict):
        said = json.dumps(said)
    if not isinstance(said, str):
        raise invalid(f"{param}: a {kind} must be a string{' or an object' * (kind == JSON_SCHEMA)}", param)
    try:
        return Constraint(kind, said)
    except ConfigError as error:
        raise invalid(str(error), param) from error
