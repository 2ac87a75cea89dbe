"""Tokenizers with T5's or BERT's conventions.

T5: pad 0, `</s>` 1, `<unk>` 2, sentinels at the top, `<extra_id_0>` highest. BERT: `[PAD]` 0, texts between `[CLS]` and
`[SEP]`, and `[MASK]` as the only sentinel. `transformers` reads a pretrained model's own tokenizer; if no pretrained one is
wanted, `train_tokenizer` trains one of T5's kind on the catalogue's text with the `tokenizers` library, which also reads it.
"""

import json
import string
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from delrec_jax.errors import UserError
from delrec_jax.language.tokenizer_backends import CONFIG, OWN, open_backend
from delrec_jax.padding import END_TOKEN, PAD_TOKEN

UNK = 2
# Codes of candidates, in this order; a tokenizer uses those that are one token.
CODE_NAMES = [*string.ascii_uppercase, *map(str, range(1, 1000))]
_SPECIAL = ["<pad>", "</s>", "<unk>"]


class Tokenizer:
    """What the project needs from a tokenizer: text to ids, ids to text, sentinels, codes.

    Attributes:
      vocab_size: number of ids, sentinels included. A model's table may have more rows (Flan-T5: 32100 ids, 32128
        rows): soft-prompt slots begin after the table (`T5Config.vocab_size`), not here.
      begin, end: special tokens around a text as the model was trained to read it: none and `</s>`, or `[CLS]` and `[SEP]`.
      name: the directory it was read from.
    """

    def __init__(self, directory: str | Path):
        """Reads a Hugging Face tokenizer directory.

        Raises:
          UserError: the directory holds no tokenizer, or one that follows neither T5's nor BERT's conventions.
        """
        if not (Path(directory) / "tokenizer.json").is_file():
            raise UserError(
                f"{directory}: no tokenizer.json there; point lm.tokenizer at a Hugging Face tokenizer directory"
            )
        self._backend = open_backend(Path(directory))
        special, self.name = self._backend.special, str(directory)
        self.vocab_size = self._backend.size
        self._unknown, self._mask = special("unk"), special("mask")
        self.begin: tuple[int, ...] = ()
        self.end: tuple[int, ...] = (END_TOKEN,)
        pad, end = special("pad"), special("eos")
        if self._mask is not None:  # T5 has no such token
            first, last = special("cls"), special("sep")
            if pad != PAD_TOKEN or first is None or last is None:
                raise UserError(
                    f"{directory}: [PAD] is {pad}, [CLS] {first} and [SEP] {last}; a BERT tokenizer has all three, [PAD] as "
                    "0, and others with a mask token (RoBERTa, MPNet) cannot be read: use a BERT model with its own"
                )
            self.begin, self.end = (first,), (last,)
        elif (pad, end) != (PAD_TOKEN, END_TOKEN):
            raise UserError(
                f"{directory}: pad is {pad} and </s> is {end}; a T5 tokenizer has 0 and 1, and others without a "
                "mask token cannot be read: use a T5 model with its own"
            )

    def frame(self, *, end_of_text: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns what every text begins and ends with: always for BERT, and for T5 only if `end_of_text`."""
        return (self.begin, self.end) if self.begin or end_of_text else ((), ())

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a piece of text, without special tokens.

        If a text is split at white space, the ids of its pieces, joined, are the ids of the text (docs/tokenizer.md).
        """
        return self._backend.encode([text])[0]

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """Returns the ids of many pieces of text at once, each without special tokens."""
        return self._backend.encode(texts) if texts else []

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids, with special tokens and with all spaces."""
        return self._backend.decode(ids)

    def sentinel(self, index: int) -> int:
        """Returns the id of `<extra_id_index>`, or of BERT's only `[MASK]` as number 0.

        Raises:
          UserError: the tokenizer has fewer sentinels.
        """
        if self._mask is not None:
            if index:
                raise UserError(
                    f"{self.name}: only one [MASK]; the text asks {index + 1} questions, and BERT can be asked one"
                )
            return self._mask
        token = self._backend.id_of(f"<extra_id_{index}>")
        if token is None or token == UNK:
            raise UserError(
                f"{self.name}: no <extra_id_{index}>; the text asks more questions than the tokenizer has sentinels"
            )
        return token

    def codes(self, count: int) -> list[int]:
        """Returns one-token codes `A`, `B`, ... for the `index` verbalizer.

        Raises:
          UserError: fewer than `count` letters or numbers are single tokens.
        """
        found: dict[int, None] = {}
        for ids in self.encode_many(CODE_NAMES):
            if len(ids) == 1 and ids[0] != self._unknown:
                found[ids[0]] = None
            if len(found) == count:
                return list(found)
        raise UserError(
            f"{self.name}: only {len(found)} one-token codes, but {count} candidates; lower the "
            "number of candidates or use lm.verbalizer=mean"
        )


def _trained(algorithm: str, texts: Sequence[str], vocab_size: int) -> Backend:
    """Trains one algorithm on the texts; special tokens come first, sentinels are added later."""
    # Punctuation is split off: "Harbor:" must not become a word of its own.
    pre = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always"),
            pre_tokenizers.Punctuation(),
        ]
    )
    trainer: trainers.Trainer
    if algorithm == "bpe":
        backend = Backend(models.BPE(unk_token="<unk>"))
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=_SPECIAL, show_progress=False
        )
    else:
        backend = Backend(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=vocab_size, special_tokens=_SPECIAL, unk_token="<unk>", show_progress=False
        )
    backend.pre_tokenizer = pre
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    try:
        backend.train_from_iterator(texts, trainer)
    except Exception as error:  # the library raises nothing more specific
        raise UserError(
            f"lm.vocab_size leaves {vocab_size} ids for words, and no tokenizer can be trained with them: {error}; raise it"
        ) from error
    return backend


def train_tokenizer(
    texts: Sequence[str], titles: Sequence[str], *, vocab_size: int, sentinels: int, directory: Path
) -> Tokenizer:
    """Trains BPE and Unigram on `texts` and keeps the one that needs fewer tokens for the titles.

    Args:
      texts: the corpus: titles and the words of all templates, each at least once.
      titles: the texts that should take few tokens.
      vocab_size: total number of ids, sentinels included.
      sentinels: number of `<extra_id_*>`.
      directory: where `tokenizer.json` and `tokenizer_config.json` are written.

    Returns:
      The kept tokenizer, read back from `directory`.
    """
    room = vocab_size - sentinels
    trained = [_trained(algorithm, texts, room) for algorithm in ("bpe", "unigram")]
    lengths = [sum(len(e.ids) for e in backend.encode_batch(list(titles))) for backend in trained]
    best = trained[lengths.index(min(lengths))]
    # From the highest index down, so that <extra_id_0> gets the highest id, as in T5.
    best.add_special_tokens([f"<extra_id_{i}>" for i in reversed(range(sentinels))])
    best.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", END_TOKEN)]
    )
    directory.mkdir(parents=True, exist_ok=True)
    best.save(str(directory / "tokenizer.json"))
    (directory / CONFIG).write_text(json.dumps(OWN, indent=1))
    return Tokenizer(directory)
