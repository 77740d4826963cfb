"""Typed settings from YAML that refuse what they don't know and name what was probably meant."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from penchant.errors import ConfigError, problems

NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What the parser raises: `ValueError` for a date such as 2026-13-01, `RecursionError` for brackets without end."""


class Loader(yaml.SafeLoader):
    """YAML's own, that also joins an emoji escaped in JSON's way, as two surrogates, and refuses half of one, which no file can hold."""

    def construct_text(self, node: yaml.ScalarNode) -> str:
        """A text of characters that can be written."""
        try:
            return str(self.construct_scalar(node)).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError as error:
            raise yaml.constructor.ConstructorError(None, None, "half of a surrogate pair is no character", node.start_mark) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Keys and values, each key once."""
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.value != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
            seen.add(str(key.value))
        return dict(super().construct_mapping(node, deep))


Loader.add_constructor("tag:yaml.org,2002:str", Loader.construct_text)


class Settings(BaseModel):
    """Base of all settings: immutable, typed, unknown keys refused. Each field's docstring says what it means."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


Model = TypeVar("Model", bound=Settings)


def load(kind: type[Model], path: Path, overrides: Sequence[str] = ()) -> Model:
    """Read `path` as settings of `kind`; `overrides` are `key.subkey=value` texts, values in YAML.

    Raises `ConfigError` that lists every mistake with its place and the nearest known key.
    """
    content = read_yaml(path)
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values at the top, found a {type(content).__name__}")
    for override in overrides:
        set_path(content, override)
    return parse(kind, content, str(path))


def parse(kind: type[Model], content: Mapping[str, Any], origin: str) -> Model:
    """Check `content` against `kind`; `origin` names it in the error."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ConfigError(problems(origin, [explain(kind, each) for each in error.errors()])) from error


def read_yaml(path: Path) -> Any:
    """Parse a YAML file; a missing or malformed one is a `ConfigError` with its place."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text: {error}") from error
    except NOT_YAML as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error


def set_path(content: dict[str, Any], override: str) -> None:
    """Set one `key.subkey=value` inside nested dictionaries."""
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"--set {override!r}: expected key=value, for example --set epochs=3")
    *parents, last = key.split(".")
    for parent in parents:
        inner = content.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} holds a value, not keys")
        content = inner
    try:
        content[last] = yaml.load(value, Loader)  # noqa: S506 - a SafeLoader
    except NOT_YAML as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML: {error}") from error


def explain(kind: type[BaseModel], error: Any) -> str:
    """One validation error in words: place, value, what would work."""
    place = ".".join(str(part) for part in error["loc"]) or "(top)"
    if error["type"] == "extra_forbidden":
        owner = settings_at(kind, error["loc"][:-1])
        known = sorted(field.alias or name for name, field in owner.model_fields.items()) if owner else []
        return f"unknown key {place!r}{suggestion(str(error['loc'][-1]), known)}"
    if error["type"] == "missing":
        return f"{place}: missing, and has no default"
    return f"{place}: {error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}"


def suggestion(name: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?`, or the whole list when nothing is near."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(repr(each) for each in near)}?"
    return f"; known: {', '.join(known)}" if known else ""


def settings_at(kind: type[BaseModel], place: Sequence[int | str]) -> type[BaseModel] | None:
    """The settings class that owns the key at `place`, looked up through nested fields."""
    current: type[BaseModel] | None = kind
    named_freely = False
    for part in place:
        if named_freely:  # a key of a dictionary, even one that is called like a field
            named_freely = False
        elif current is not None and part in current.model_fields:
            annotation = current.model_fields[str(part)].annotation
            current, named_freely = nested(annotation), get_origin(annotation) is dict
    return current


def nested(annotation: Any) -> type[BaseModel] | None:
    """The settings class inside an annotation such as `dict[str, Column] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for each in get_args(annotation) if (found := nested(each))), None)
