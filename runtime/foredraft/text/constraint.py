"""What a text must be: of a JSON schema, a regular expression or a grammar, as users write them.

Plain data, for whoever passes it on; ``grammar`` makes it work.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from foredraft.errors import ConfigError, UnknownNameError

JSON_SCHEMA: Final = "json_schema"
REGEX: Final = "regex"
GRAMMAR: Final = "grammar"
KINDS: Final = (JSON_SCHEMA, REGEX, GRAMMAR)
MAX_RULE_CHARACTERS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Constraint:
    """``kind``: json_schema, regex or grammar (Lark or GBNF); ``rule``: the schema, expression or grammar itself.

    Raises ConfigError, UnknownNameError.
    """

    kind: str
    rule: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownNameError("kind of constraint", self.kind, KINDS)
        if not 0 < len(self.rule) <= MAX_RULE_CHARACTERS:
            raise ConfigError(f"a {self.kind} has 1 to {MAX_RULE_CHARACTERS} characters, not {len(self.rule)}")


def constraint_of(
    *,
    json_schema: str | Mapping[str, Any] | type | None = None,
    regex: str | None = None,
    grammar: str | None = None,
) -> Constraint | None:
    """The one that is given; None where none is. Raises ConfigError.

    ``json_schema``: as JSON or as a dict, or a type: a msgspec Struct, a dataclass, a TypedDict or a pydantic model.
    """
    if json_schema is not None and not isinstance(json_schema, str):
        json_schema = json.dumps(_schema(json_schema))
    rules = {JSON_SCHEMA: json_schema, REGEX: regex, GRAMMAR: grammar}
    given = [Constraint(kind, rule) for kind, rule in rules.items() if rule is not None]
    if len(given) > 1:
        kinds = " and ".join(one.kind for one in given)
        raise ConfigError(f"a text is held to one constraint, and {kinds} were given")
    return given[0] if given else None


def _schema(said: Mapping[str, Any] | type) -> Mapping[str, Any]:
    if isinstance(said, Mapping):
        return said
    pydantic = getattr(said, "model_json_schema", None)
    try:
        schema: Mapping[str, Any] = msgspec.json.schema(said) if pydantic is None else pydantic()
    except (TypeError, ValueError) as error:  # pydantic's own errors are ValueErrors or RuntimeErrors
        raise ConfigError(f"no JSON schema can be made of {said!r}: {error}") from error
    return schema
