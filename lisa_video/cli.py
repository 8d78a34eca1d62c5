"""The command line that all jobs share: one YAML file, overrides by flag, one line per user error.

    python pipelines/JOB.py --config FILE [--section.key value ...] [--dry-run]

A job's config is a frozen dataclass, whose sections are frozen dataclasses again; the docstring
under each field is its help text. Nothing heavy is imported here: a job's `run` does that.
"""

import dataclasses
import difflib
import re
import sys
import typing
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import pairwise
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import yaml

from lisa_video.errors import UserError
from lisa_video.termination import EXIT_TERMINATED, Terminated, raising_on_sigterm

ConfigT = TypeVar("ConfigT")

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
JOB_FLAGS = frozenset({"help", "config", "dry-run"})


def run_job(
    config_class: type[ConfigT],
    run: Callable[[ConfigT], object],
    *,
    check: Callable[[ConfigT], object] | None = None,
    description: str,
    argv: Sequence[str] | None = None,
    positional: str | None = None,
) -> None:
    """Parse the command line into `config_class`, then check and run the job.

    `check(config)` looks at everything that can be wrong before work starts (files, folders,
    matching shapes) and writes nothing; it runs before every job. With `--dry-run` the resolved
    config is printed as YAML after it, and `run` is not called. `argv` defaults to the process's;
    where it begins with no flag, that is the value of the key `positional`.

    Exits with code 2 and one line `error: ...` on stderr where the command line, the YAML file,
    the config's validation, `check` or `run` raise `UserError`; with 130 and a line on Ctrl-C, and
    with 143 on SIGTERM where `run` does not handle it: what it has begun is cleaned up.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if positional is not None and arguments and not arguments[0].startswith("-"):
        # Last, where it overrides what the YAML file says.
        arguments = [*arguments[1:], f"--{positional}={arguments[0]}"]
    arguments = plain_flags(config_class, arguments)
    try:
        with raising_on_sigterm():
            config, dry_run = parse_config(config_class, arguments, description)
            if check is not None:
                check(config)
            if dry_run:
                print(resolved_yaml(config), end="")
            else:
                run(config)
        return
    except UserError as error:
        line, code = f"error: {_one_line(str(error))}", EXIT_USER_ERROR
    except KeyboardInterrupt:
        line, code = "interrupted", EXIT_INTERRUPTED
    except Terminated:
        line, code = "terminated", EXIT_TERMINATED
    # Here, where the exception and with it the progress bars of what it ended are gone.
    print(line, file=sys.stderr)
    raise SystemExit(code)


def parse_config(
    config_class: type[ConfigT], arguments: Sequence[str], description: str
) -> tuple[ConfigT, bool]:
    """The config and whether `--dry-run` was given; raises UserError. `--help` exits."""
    known = _known_keys(config_class)
    files = {path: _load_yaml(path) for path in _config_paths(arguments)}
    for path, values in files.items():
        _check_keys(values, known, path)
    for flag in _flags(arguments):
        if flag not in JOB_FLAGS and not _is_known(flag, known):
            raise UserError(f"unknown flag --{flag}, nearest is --{_nearest(flag, known)}")

    parser = _build_parser(config_class, description)
    try:
        namespace = parser.parse_args(arguments)
    except ArgumentError as error:
        raise UserError(_describe(error, arguments, files)) from None
    try:
        values = parser.instantiate(namespace)
    except ValueError as error:
        if isinstance(error.__cause__, UserError):  # what an optional section refuses
            raise error.__cause__ from None
        raise
    config = config_class(**{name: values[name] for name in _sections(config_class)})
    return config, namespace.dry_run


def with_changes(config: ConfigT, changes: Mapping[str, Any], where: str) -> ConfigT:
    """The config with some values replaced, each given as {"section.key": value} or in sections.

    Validated as a file is: raises UserError, which names `where`, for unknown keys and for values
    that do not fit.
    """
    _check_keys(changes, known := _known_keys(type(config)), where)
    values = config_to_dict(config)
    for key, value in _leaves(changes, known):
        *sections, name = key.split(".")
        place = values
        for section in sections:
            place = place[section]
        place[name] = value
    parser = _build_parser(type(config), "")
    try:
        namespace = parser.parse_object(values)
        made = parser.instantiate(namespace)
        return type(config)(**{name: made[name] for name in _sections(type(config))})
    except ArgumentError as error:
        raise UserError(f"{where}: {_describe(error, [], {})}") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _leaves(
    values: Mapping[str, Any], known: Mapping[str, bool], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Dotted key and value, sections opened."""
    for name, value in values.items():
        key = prefix + name
        if known.get(key):
            yield from _leaves(value, known, f"{key}.")
        else:
            yield key, value


def plain_flags(config_class: type, arguments: Sequence[str]) -> list[str]:
    """Arguments in which a switch may be given alone: `--allow-skips` is `--allow_skips=true`."""
    switches = {name for name, kind in _values(config_class) if kind is bool}
    plain: list[str] = []
    for argument, following in pairwise([*arguments, "--"]):
        name = argument.removeprefix("--").replace("-", "_")
        alone = argument.startswith("--") and following.startswith("--")
        plain.append(f"--{name}=true" if alone and name in switches else argument)
    return plain


def config_to_dict(config: object) -> dict[str, Any]:
    """A config dataclass as plain nested dicts, lists, strings and numbers, in field order."""
    assert dataclasses.is_dataclass(config), type(config)
    fields = (field for field in dataclasses.fields(config) if field.init)
    return {field.name: _plain(getattr(config, field.name)) for field in fields}


def resolved_yaml(config: object) -> str:
    """The config as YAML that `--config` reads back into an equal config."""
    return yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return config_to_dict(value)
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _build_parser(config_class: type, description: str) -> jsonargparse.ArgumentParser:
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = jsonargparse.ArgumentParser(
        description=description, exit_on_error=False, print_config=None
    )
    parser.add_argument("--config", action="config", metavar="FILE", help="YAML file of this job.")
    parser.add_argument(
        "--dry-run", action="store_true", help="Check everything, print the config, do no work."
    )
    parser.add_class_arguments(config_class, None, as_group=False)
    return parser


# Keys: "section.key" names a value, "section" a section. Sections are fields that are dataclasses.


def _sections(config_class: type) -> dict[str, type | None]:
    """Field name -> dataclass of that section, or None where the field holds a value."""
    hints = typing.get_type_hints(config_class)
    names = [field.name for field in dataclasses.fields(config_class) if field.init]
    return {name: hints[name] if dataclasses.is_dataclass(hints[name]) else None for name in names}


def _values(config_class: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and type of each value."""
    hints = typing.get_type_hints(config_class)
    for name, section in _sections(config_class).items():
        if section is None:
            yield prefix + name, hints[name]
        else:
            yield from _values(section, f"{prefix}{name}.")


def _known_keys(config_class: type, prefix: str = "") -> dict[str, bool]:
    """Dotted key -> whether it is a section."""
    known: dict[str, bool] = {}
    for name, section in _sections(config_class).items():
        known[prefix + name] = section is not None
        if section is not None:
            known |= _known_keys(section, f"{prefix}{name}.")
    return known


def _check_keys(
    values: Mapping[str, Any], known: Mapping[str, bool], path: str, prefix: str = ""
) -> None:
    for name, value in values.items():
        key = f"{prefix}{name}"
        if not _is_known(key, known):
            raise UserError(f"{path}: unknown key '{key}', nearest is '{_nearest(key, known)}'")
        if known.get(key):
            if not isinstance(value, Mapping):
                raise UserError(f"{path}: '{key}' is a section, it holds keys and not {value!r}")
            _check_keys(value, known, path, f"{key}.")


def _is_known(key: str, known: Mapping[str, bool]) -> bool:
    """True also below a key that is a value: what such a value may hold is its type's affair."""
    parts = key.split(".")
    parents = (".".join(parts[:end]) for end in range(1, len(parts)))
    return key in known or any(known.get(parent) is False for parent in parents)


def _nearest(key: str, known: Mapping[str, bool]) -> str:
    """The known key that looks most like `key`, both in full and in its last part."""

    def likeness(candidate: str) -> float:
        pairs = ((key, candidate), (key.split(".")[-1], candidate.split(".")[-1]))
        return sum(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    return max(known, key=likeness)


# The command line and the files, before and after jsonargparse.


def _flags(arguments: Sequence[str]) -> Iterator[str]:
    for argument in arguments:
        if argument.startswith("--") and len(argument) > 2:
            yield argument[2:].split("=", 1)[0]


def _config_paths(arguments: Sequence[str]) -> Iterator[str]:
    for position, argument in enumerate(arguments):
        if argument.startswith("--config="):
            yield argument.removeprefix("--config=")
        elif argument == "--config":
            yield from arguments[position + 1 : position + 2]


def _load_yaml(path: str) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read this config: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{path}: not valid YAML at line {line}: {error.problem}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, Mapping):
        raise UserError(f"{path}: a config is a mapping of keys to values, as in 'seed: 0'")
    return values


def _describe(
    error: ArgumentError, arguments: Sequence[str], files: Mapping[str, Mapping[str, Any]]
) -> str:
    """jsonargparse's message in one plain line, with the file that holds the key it names."""
    message = re.sub(r"<class '([\w.]+)'>", r"\1", str(error)).replace("typing.", "")
    match = re.match(r'Parser key "([\w.]+)":\s*(.*)', message, re.DOTALL)
    if match is None:
        return message
    key, problem = match.groups()
    if key in _flags(arguments):
        return f"--{key}: {problem}"
    holders = [path for path, values in files.items() if _holds(values, key)]
    return f"{holders[-1]}: {key}: {problem}" if holders else f"{key}: {problem}"


def _holds(values: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True


def _one_line(message: str) -> str:
    return " ".join(message.split())
