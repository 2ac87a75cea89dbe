"""The page: a Gradio layout whose clicks call `Answers`.

Gradio is an extra of its own and slow to import, so it is imported when a page is built.
"""

import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from delrec_jax.app import render
from delrec_jax.app.answers import Answer, Answers, Asked, Refused
from delrec_jax.app.searching import Search
from delrec_jax.errors import UserError
from delrec_jax.printable import printable

if TYPE_CHECKING:
    import gradio

FAILED = "This could not be answered; the terminal in which `delrec app` runs says why."
_K = 10  # length of a list, unless somebody changes it
_ASKING = "asking"  # clicks that compute lists wait for one another: they share one model

Update = Any
History = tuple[int, ...]


def styles() -> str:
    """The style sheet of the page's own parts; it uses the theme's colors."""
    return files("delrec_jax.app").joinpath("templates", "page.css").read_text()


def theme() -> "gradio.Theme":
    """Gradio's default look in fonts that every system has, and with notes and boxes that are easier to see."""
    import gradio as gr

    look = gr.themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "Consolas", "monospace"]
    )
    return look.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        checkbox_border_color="*neutral_400",
        checkbox_border_color_dark="*neutral_500",
    )


def build(answers: Answers, name: str) -> "gradio.Blocks":
    """Returns the page of one run.

    Args:
      answers: what it asks.
      name: of the corpus, for the headline.
    """
    blocks: gradio.Blocks = _Page(answers, name).blocks
    return blocks


class _Page:
    """The layout, and what each click does."""

    def __init__(self, answers: Answers, name: str):
        import gradio as gr

        self._answers, self._search = answers, Search(answers.titles)
        with gr.Blocks(title=f"delrec: {name}", analytics_enabled=False) as self.blocks:
            self._history, self._before = gr.State(()), gr.State(None)
            gr.Markdown(
                f"# What comes next?\nPick titles out of the {len(answers.titles):,} of `{name}`, and see what each "
                "system of this run recommends after them."
            )
            with gr.Row():
                self._lay_search()
                self._lay_history()
                self._lay_systems()
            self._button = gr.Button("Recommend", variant="primary")
            self._message = gr.HTML(visible=False)
            self._lists = gr.HTML()
            with gr.Accordion("What the language models read", open=False):
                self._texts = gr.HTML('<p class="note">Nothing yet.</p>')
            self._wire()

    def _lay_search(self) -> None:
        import gradio as gr

        with gr.Column(min_width=300):
            self._typed = gr.Textbox(
                label="Search for a title",
                placeholder="Type words of a title; Enter adds the first match",
                max_length=200,
            )
            self._matches = gr.Radio(**self._found(""), interactive=True)

    def _lay_history(self) -> None:
        import gradio as gr

        with gr.Column(min_width=300):
            self._kept = gr.CheckboxGroup(
                [],
                label="History, oldest first",
                info="Uncheck an item to see what changes without it.",
                interactive=True,
            )
            self._reversed = gr.Checkbox(label="Reverse the order")
            self._clear = gr.Button("Clear the history", size="sm")

    def _lay_systems(self) -> None:
        import gradio as gr

        with gr.Column(min_width=300):
            self._systems = gr.Dropdown(
                [(label, name) for name, label in self._answers.labels.items()],
                value=list(self._answers.chosen),
                multiselect=True,
                label="Systems",
            )
            self._k = gr.Number(_K, label="Length of the lists", step=1)

    def _wire(self) -> None:
        """Says which function each event calls."""
        import gradio as gr

        chosen = [self._history, self._kept]
        shown = [self._history, self._kept, self._message]
        hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        self._typed.change(
            lambda text: gr.Radio(**self._found(text)),
            self._typed,
            self._matches,
            trigger_mode="always_last",
            **hidden,
        )
        self._typed.submit(self._add_first, [self._typed, *chosen], shown, **hidden)

        def pick(history: History, kept: Sequence[str], event: gr.SelectData) -> tuple[Update, ...]:
            return *self._add(event.value, history, kept), gr.Radio(value=None)

        self._matches.select(pick, chosen, [*shown, self._matches], **hidden)
        asked = [*chosen, self._reversed, self._systems, self._k, self._before]
        answered = [self._message, self._lists, self._texts, self._before]
        again = partial(self._ask, again=True)
        for event, function in [
            (self._button.click, self._ask),
            (self._kept.input, again),
            (self._reversed.input, again),
        ]:
            event(
                function,
                asked,
                answered,
                api_visibility="private",
                concurrency_id=_ASKING,
                concurrency_limit=1,
                show_progress_on=self._lists,
            )
        self._clear.click(lambda: self._shown(()), None, shown, **hidden)

    def _found(self, text: str) -> dict[str, Any]:
        """The matches of a search as properties of the choice below it."""
        found = self._search(str(text or ""))
        shown = len(found.items)
        return {
            "choices": [(self._answers.titles[item], item) for item in found.items],
            "value": None,
            "label": f"Titles: {shown} of {found.total:,}"
            if shown < found.total
            else f"Titles: {shown}",
            "info": "Click to add to the history.",
        }

    def _add_first(self, text: str, history: History, kept: Sequence[str]) -> tuple[Update, ...]:
        found = self._search(str(text or ""))
        if not found.items:
            return self._shown(history, kept, "No title has these words.")
        return self._add(found.items[0], history, kept)

    def _add(self, item: object, history: History, kept: Sequence[str]) -> tuple[Update, ...]:
        try:
            added = self._answers.added(history, item)
        except Refused as refusal:
            return self._shown(history, kept, str(refusal))
        return self._shown(added, [*kept, str(len(history))])

    def _shown(
        self, history: History, kept: Sequence[str] = (), message: str = ""
    ) -> tuple[Update, ...]:
        """A history, the places of the items that take part, and a message, as what the page shows."""
        import gradio as gr

        choices = [
            (f"{place + 1}. {self._answers.titles[item]}", str(place))
            for place, item in enumerate(history)
        ]
        return history, gr.CheckboxGroup(choices=choices, value=list(kept)), _told(message)

    def _ask(
        self,
        history: History,
        kept: Sequence[str],
        reverse: bool,
        systems: Sequence[str],
        k: float,
        before: Asked | None,
        *,
        again: bool = False,
    ) -> tuple[Update, ...]:
        """Answers a click; with `again`, only if there is an answer already."""
        import gradio as gr

        if again and before is None:
            return (gr.skip(),) * 4
        items = [item for place, item in enumerate(history) if str(place) in kept]
        answer = answered(
            lambda: self._answers.ask(items[::-1] if reverse else items, systems, k, before)
        )
        if isinstance(answer, str):
            return _told(answer), gr.skip(), gr.skip(), gr.skip()
        return _told(""), render.lists(answer), render.texts(answer), answer.asked


def _told(text: str) -> Update:
    """The line for messages; it takes no room while there is none."""
    import gradio as gr

    return gr.HTML(render.message(text) if text else "", visible=bool(text))


def answered(ask: Callable[[], Answer]) -> Answer | str:
    """Returns an answer, or what the page says instead: a refusal in its own words, and of all else only that it failed.

    Other messages name files of this machine and are for the terminal, as tracebacks are.
    """
    try:
        return ask()
    except Refused as refusal:
        return str(refusal)
    except UserError as error:
        print(f"delrec: {printable(str(error))}", file=sys.stderr, flush=True)
    except Exception:
        traceback.print_exc()
    return FAILED
