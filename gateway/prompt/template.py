"""The checkpoint's chat template, rendered exactly as transformers renders it."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, Self

import jinja2
from jinja2 import meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from protos.bundle.manifest import BundleError
from protos.wire.errors import InvalidRequest

TEMPLATE_NAME = "processor/chat_template.jinja"

# A template is a program of the bundle's: these are what expressions in it raise when a
# conversation does not fit them (None + text, a missing key, text as a number).
_TEMPLATE_FAILURES = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RecursionError,
)


class _Refusal(jinja2.TemplateError):
    """What the template's own `raise_exception` raises; its text is meant for the client."""


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}`: marks answers for training; renders its body."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A call block as in transformers, because its scoping of `set` is visible to templates.
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class _Dict:
    """`dict(...)` for templates, without the attributes of the real class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class _Namespace(Namespace):
    """`namespace(...)` that refuses underscored names, which reach Python's internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # so that namespace(self=...) works
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _check_attribute(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)


class ChatTemplate:
    """Renders conversations to prompt text.

    **Source**: transformers `render_jinja_template` and its environment; parity in
    tests/parity/test_prompt_templates.py.
    """

    def __init__(self, source: str, variables: Mapping[str, Any] | None = None) -> None:
        """Compiles a template.

        Args:
            source: Jinja text.
            variables: What every rendering sees besides the conversation: the tokenizer's
                named tokens ("eos_token", ...).

        Raises:
            BundleError: the text is not a Jinja template.

        Attributes:
            source: The text.
            reads: Names of the variables that it reads, those it sets as well apart.
        """
        self.source = source
        self._variables = dict(variables or {})
        environment = _environment()
        try:
            self._template = environment.from_string(source)
            # A chain of mappings otherwise, which every rendering would copy step by step.
            self._template.globals = dict(self._template.globals)
            self.reads = frozenset(meta.find_undeclared_variables(environment.parse(source)))
        except jinja2.TemplateSyntaxError as error:
            raise BundleError(
                f"{TEMPLATE_NAME} is not a valid template (line {error.lineno})"
            ) from error

    @classmethod
    def from_file(cls, file: Path, variables: Mapping[str, Any] | None = None) -> Self:
        """Reads and compiles a bundle's template.

        Raises:
            BundleError: the file is missing, not UTF-8, or no template.
        """
        try:
            source = file.read_text(encoding="utf-8")
        except OSError as error:
            raise BundleError(f"the bundle lacks {TEMPLATE_NAME}") from error
        except UnicodeDecodeError as error:
            raise BundleError(f"{TEMPLATE_NAME} is not UTF-8 text") from error
        return cls(source, variables)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        *,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt text, ending where the assistant's answer begins.

        Args:
            messages: Turns in transformers' form, plain JSON values only.
            tools: Tool schemas, or None.
            options: Variables besides, by name. One is absent unless it is given, because a
                template may test whether it is defined at all.

        Raises:
            InvalidRequest: param "messages"; the template refused the conversation (with the
                template's own words) or could not be rendered with it.
        """
        try:
            return self._template.render(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=True,
                **{**self._variables, **(options or {})},
            )
        except _Refusal as error:
            raise InvalidRequest(
                f"messages are refused by the model's chat template: {error.message}",
                param="messages",
            ) from error
        except _TEMPLATE_FAILURES as error:
            raise InvalidRequest(
                "messages do not fit the model's chat template", param="messages"
            ) from error


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["dict"] = _Dict()
    environment.globals["namespace"] = _Namespace
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML; the model was trained on plain JSON.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: object) -> NoReturn:
    raise _Refusal(str(message))


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _check_attribute(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError("namespaces take no underscored names")
