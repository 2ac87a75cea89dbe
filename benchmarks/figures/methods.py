"""The figures of the two methods."""

from canvas import SOFT, Canvas, Point

_LEGEND = (("trained", "is trained here"), ("frozen", "stays as it is"))


def delrec() -> Canvas:
    """DELRec: a teacher, a soft prompt that is distilled from it, a tuned ranker."""
    canvas = Canvas(
        980,
        372,
        "DELRec",
        "A conventional recommender is trained on interactions. Stage 1: a soft prompt in front of a frozen language model "
        "learns what the teacher would answer, by Temporal Analysis and Recommendation Pattern Simulating. Stage 2: with the "
        "prompt frozen, AdaLoRA tunes the language model on the true next item. It then ranks the catalogue.",
    )
    _columns(canvas, "Teacher", "Stage 1: distill", "Stage 2: tune", "Rank")
    canvas.box((24, 62), (196, 58), "Interactions", ["who had what, in order"], "data")
    canvas.box(
        (24, 170),
        (196, 96),
        "Teacher",
        ["SASRec, GRU4Rec, Caser,", "EASE, Markov, a hybrid,", "or anyone's lists"],
        "trained",
    )
    canvas.arrow((122, 120), (122, 168))
    canvas.box(
        (272, 62),
        (196, 88),
        "Two tasks as text",
        ["Temporal Analysis;", "Pattern Simulating: the", "teacher's top h as answer"],
        "data",
    )
    canvas.arrow((220, 218), (246, 218), (246, 103), (270, 103))
    canvas.box((272, 176), (196, 50), "Soft prompt", (), "trained")
    canvas.write((284, 216), "k vectors among the words", size=12.5)
    canvas.box((272, 236), (196, 50), "Language model", (), "frozen")
    canvas.write((284, 276), "T5, Flan-T5, MiniLM", size=12.5)
    canvas.arrow((370, 150), (370, 174))
    canvas.box(
        (520, 62),
        (196, 88),
        "Next item as text",
        ["the history's titles;", "the answer is the item", "that came next"],
        "data",
    )
    canvas.box((520, 176), (196, 50), "Soft prompt", (), "frozen")
    canvas.write((532, 216), "as distilled", size=12.5)
    canvas.box((520, 236), (196, 50), "Language model", (), "trained")
    canvas.write((532, 276), "AdaLoRA's adapters alone", size=12.5)
    canvas.arrow((468, 201), (518, 201))
    canvas.arrow((618, 150), (618, 174))
    canvas.box(
        (768, 130),
        (188, 106),
        "Next items",
        ["HR@k and NDCG@k beside", "every baseline, control", "and hybrid, with paired", "tests"],
        "result",
    )
    canvas.arrow((716, 261), (742, 261), (742, 180), (766, 180))
    _legend(canvas, 330)
    return canvas


def p2rec() -> Canvas:
    """P2Rec: a language model that learns preferences, whose item vectors go back into recommenders."""
    canvas = Canvas(
        980,
        330,
        "P2Rec",
        "The item vectors of a trained recommender are grouped into latent categories. A language model learns to predict, "
        "from the text of a user's history, how the user's items are distributed over the categories. Its vectors of the "
        "items' titles then go into SASRec, GRU4Rec and Caser, beside controls.",
    )
    _columns(canvas, "Categories", "Parse", "Augment", "Rank")
    canvas.box((24, 62), (196, 64), "Item vectors", ["of a trained SASRec"], "frozen")
    canvas.box(
        (24, 168),
        (196, 70),
        "Latent categories",
        ["K groups, popularity", "taken out"],
        "data",
    )
    canvas.arrow((122, 126), (122, 166))
    canvas.box((272, 62), (196, 64), "A user's history", ["as titles"], "data")
    canvas.box(
        (272, 168),
        (196, 88),
        "Language model",
        ["predicts the shares of", "the categories in the", "history (AdaLoRA)"],
        "trained",
    )
    canvas.arrow((220, 200), (270, 200), words="target")
    canvas.arrow((370, 126), (370, 166))
    canvas.box((520, 62), (196, 64), "Vectors of titles", ["from the tuned model"], "frozen")
    canvas.arrow((468, 209), (494, 209), (494, 94), (518, 94))
    canvas.box(
        (520, 168),
        (196, 88),
        "Recommenders",
        ["SASRec, GRU4Rec, Caser", "start from the vectors,", "or read them"],
        "trained",
    )
    canvas.arrow((618, 126), (618, 166))
    canvas.box(
        (768, 150),
        (188, 106),
        "Next items",
        ["beside plain ones, the", "untuned model, other", "items' titles and random", "vectors"],
        "result",
    )
    canvas.arrow((716, 209), (766, 209))
    _legend(canvas, 292)
    return canvas


def _columns(canvas: Canvas, *headings: str) -> None:
    for number, heading in enumerate(headings):
        canvas.write((24 + 248 * number, 40), heading, size=15, bold=True, color=SOFT)


def _legend(canvas: Canvas, y: float) -> None:
    for number, (kind, words) in enumerate(_LEGEND):
        at: Point = (24 + 150 * number, y)
        canvas.box(at, (18, 18), "", kind=kind)
        canvas.write((at[0] + 26, y + 14), words, size=12.5, color=SOFT)
