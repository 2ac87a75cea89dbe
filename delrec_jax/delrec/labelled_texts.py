"""The types of stage 2's examples: a text and its answer, over the catalogue or among candidates."""

from jaxtyping import Float, Int

from delrec_jax.batches import Arrays, batch_type


@batch_type
class LabelledText:
    """A text whose answer is an item of the catalogue; a batch has a leading axis B.

    Attributes:
      ids: int32 [T].
      label: int32 [], the item.
      history: int32 [H], all items before it, left-padded with -1; None unless a recommender scores it (`residual_tuning`).
      owners: int32 [T], the item that each token belongs to (`data.read_texts`); None if the verbalizer reads none.
      guides: float32 [D], what the teacher expects after the history (`guides`); None if the prompt reads none.
      folds: int32 [], which of the recommenders that are tuned beside is asked; None if there is one.
      before: float32 [I], what the model before stage 2 scores this text; None = the step computes it if it needs it.
    """

    ids: Int[Arrays, "*B T"]
    label: Int[Arrays, "*B"]
    history: Int[Arrays, "*B H"] | None = None
    owners: Int[Arrays, "*B T"] | None = None
    guides: Float[Arrays, "*B D"] | None = None
    folds: Int[Arrays, "*B"] | None = None
    before: Float[Arrays, "*B I"] | None = None


@batch_type
class ListedText:
    """A text whose answer is one of its candidates; a batch has a leading axis B.

    Attributes:
      ids: int32 [T].
      candidates: int32 [C].
      targets: float32 [C], 1 at the answer.
      history, owners, guides, folds: as in `LabelledText`.
    """

    ids: Int[Arrays, "*B T"]
    candidates: Int[Arrays, "*B C"]
    targets: Float[Arrays, "*B C"]
    history: Int[Arrays, "*B H"] | None = None
    owners: Int[Arrays, "*B T"] | None = None
    guides: Float[Arrays, "*B D"] | None = None
    folds: Int[Arrays, "*B"] | None = None
