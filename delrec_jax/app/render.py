"""Answers as HTML. Titles are a corpus's own text, so everything is escaped."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from delrec_jax.app.answers import Answer


@cache
def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("delrec_jax.app"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def lists(answer: Answer) -> str:
    """The lists side by side, with what changed since the last answer."""
    return _template("lists.html.j2").render(answer=answer, time=_time, score=_score)


def texts(answer: Answer) -> str:
    """What the language models read."""
    return _template("texts.html.j2").render(texts=answer.texts)


def message(text: str) -> str:
    """Why a question is not answered."""
    return _template("message.html.j2").render(text=text)


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def _score(score: float) -> str:
    return f"{score:#.3g}".rstrip(".")
