"""What of a policy may be tuned: numbers with ranges, declared by the policy's class.

    class MyPolicy:
        parameters: ClassVar[tuple[Parameter, ...]] = (Parameter("gamma", 1, 16),)

A declared parameter is a field of the policy's dataclass; its default lies in the range.
"""

import math
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

from foredraft.edge.policy import Policy
from foredraft.errors import ConfigError, UnknownNameError
from foredraft.policies import GROUP, policy_class

Number = int | float


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number from ``least`` to ``most``, both included; a whole one where both are.

    ``step``: how far neighbours are apart; whole numbers have 1, for others 0 means any value.
    ``log``: its ratio matters, not its difference.
    """

    name: str
    least: Number
    most: Number
    step: Number = 0
    log: bool = False

    def __post_init__(self) -> None:
        if not self.least < self.most < math.inf:
            raise ConfigError(f"parameter {self.name}: least must be below most, not {self.least!r} and {self.most!r}")
        if self.step < 0 or (self.whole and not isinstance(self.step, int)):
            raise ConfigError(f"parameter {self.name}: step must be 0 or more, as whole as its range: {self.step!r}")
        if self.log and (self.least <= 0 or self.step):
            raise ConfigError(f"parameter {self.name}: a ratio needs least above 0 and no step")

    @property
    def whole(self) -> bool:
        """Whether it counts something."""
        return isinstance(self.least, int) and isinstance(self.most, int)

    def count(self) -> int | None:
        """How many values it has; None where they cannot be counted."""
        step = self.step or (1 if self.whole else 0)
        return math.floor((self.most - self.least) / step + 1e-9) + 1 if step else None

    def values(self) -> list[Number]:
        """All of them, where they can be counted, in the form in which a specification has them."""
        step = self.step or 1
        return [self.said(self.least + index * step) for index in range(self.count() or 0)]

    def said(self, value: Number) -> Number:
        """The value as it is written into a specification: four digits are enough, and can be read."""
        return int(value) if self.whole else float(f"{value:.4g}")


@lru_cache(maxsize=256)
def tunable(spec: str) -> tuple[Parameter, ...]:
    """What may be tuned of the policy that ``spec`` names; what the specification gives is fixed.

    Raises UnknownNameError, ConfigError.
    """
    factory, given = policy_class(spec)
    declared: tuple[Parameter, ...] = getattr(factory, "parameters", ())
    known = _defaults(factory)
    for parameter in declared:
        if not isinstance(parameter, Parameter):
            raise ConfigError(f"policy {spec}: parameters must hold Parameter, not {parameter!r}")
        if parameter.name not in known:
            raise UnknownNameError(f"parameter declared by policy {spec}", parameter.name, known)
        default = known[parameter.name]
        if not isinstance(default, int | float) or not parameter.least <= default <= parameter.most:
            reason = f"its default {default!r} is outside of {parameter.least!r} to {parameter.most!r}"
            raise ConfigError(f"policy {spec}: parameter {parameter.name}: {reason}")
    return tuple(parameter for parameter in declared if parameter.name not in given)


def default_of(spec: str, parameter: Parameter) -> Number:
    """The policy's own value of a parameter."""
    default: Number = _defaults(policy_class(spec)[0])[parameter.name]
    return default


def with_parameters(spec: str, values: dict[str, Any]) -> str:
    """The specification with more parameters in it."""
    if not values:
        return spec
    given = policy_class(spec)[1]
    said = ",".join(f"{name}={text_of(value)}" for name, value in values.items())
    return f"{spec}{',' if given else ':'}{said}"


def describe_policy(policy: Policy) -> str:
    """A specification that makes such a policy again, if it is an installed one or a dataclass of a module."""
    kind = type(policy)
    place = f"{kind.__module__}:{kind.__qualname__}"
    name = next((entry.name for entry in entry_points(group=GROUP) if entry.value == place), place)
    values = [f"{at}={text_of(value)}" for at, value in _changed(policy)]
    return f"{name}:{','.join(values)}" if values else name


def _changed(policy: Any) -> list[tuple[str, Any]]:
    """The parameters that differ from their defaults."""
    if not is_dataclass(policy):
        return []
    known = [(one.name, one.default, getattr(policy, one.name)) for one in fields(policy) if one.init]
    return [(name, value) for name, default, value in known if name != "name" and default not in (MISSING, value)]


def text_of(value: Any) -> str:
    """A value as a specification has it. Raises ConfigError for a text that it could not have."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "+".join(str(item) for item in value)
    if isinstance(value, str) and any(mark in value for mark in ",="):
        raise ConfigError(f"a policy's parameter cannot hold {value!r}: it has a comma or an equals sign")
    return str(value)


def _defaults(factory: Any) -> dict[str, Any]:
    return {field.name: field.default for field in fields(factory)} if is_dataclass(factory) else {}
