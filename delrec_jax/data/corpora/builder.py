"""TFDS builders of sequence corpora, written and read without TensorFlow.

A corpus is two splits of ArrayRecord files: `catalogue` (blocks of items) and `histories` (blocks of users). A TFDS record
takes about a tenth of a millisecond to write and to read, whatever its size, so one record per user would take minutes for
a million users. A subclass only says how to parse its source; where the files go, their format and how they are read is the
same for all.
"""

import abc
import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
import tensorflow_datasets as tfds

from delrec_jax.data.corpora.quick_copy import parts_of, runs_of
from delrec_jax.data.interactions import Catalogue, Corpus, Interactions

Settings = TypeVar("Settings")

BLOCK = 4096
"""Items or users per record."""


class SequenceCorpusBuilder(tfds.core.GeneratorBasedBuilder, Generic[Settings]):
    """Base of all corpora: items with titles and attributes, users with timed interactions.

    Attributes:
      settings: What `parse` needs to know. TFDS does not record it, so the caller must choose a separate `data_dir` for
        each content (`corpora.prepare_corpus` does).
    """

    VERSION = tfds.core.Version("2.0.0")  # of the record layout below

    def __init__(
        self, *, settings: Settings, data_dir: str | os.PathLike[str], config: str | None = None
    ):
        self.settings = settings
        # The default format, tfrecord, needs TensorFlow.
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    @abc.abstractmethod
    def parse(self) -> Corpus:
        """Reads the source; called once, when the corpus is prepared.

        Raises:
          UserError: if something is wrong with the source.
        """

    def prepare(self) -> None:
        """Writes the records unless they exist; an interrupted write leaves none."""
        # TFDS reports every preparation on standard output, which belongs to the command line.
        with contextlib.redirect_stdout(io.StringIO()):
            tfds.disable_progress_bar()
            self.download_and_prepare()

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "ids": tfds.features.Text(doc="JSON list: of items or of users"),
            "titles": tfds.features.Text(doc="JSON list: of items"),
            "attributes": tfds.features.Text(doc="JSON object: name to a list, one value an item"),
            "lengths": _array(np.int64, "interactions of each user"),
            "items": _array(np.int32, "of all users, one after the other"),
            "timestamps": _array(np.int64, "of all users, one after the other"),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # the position of an item or user is its number
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager  # nothing is downloaded
        corpus = self.parse()
        self.info.metadata.update(
            name=corpus.name,
            dropped=dict(corpus.dropped),
            ordered_only=corpus.ordered_only,
            parts=runs_of(corpus.parts),
        )
        return {
            "catalogue": _catalogue_records(corpus.catalogue),
            "histories": _history_records(corpus.interactions),
        }

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        raise NotImplementedError("the splits are generated from one parsed corpus")


def read_corpus(builder: SequenceCorpusBuilder[Any]) -> Corpus:
    """Reads a prepared corpus back from its records.

    Args:
      builder: A builder whose `prepare` has run.

    Returns:
      What `parse` returned when it was prepared.
    """
    metadata: Mapping[str, Any] = builder.info.metadata
    return Corpus(
        name=metadata["name"],
        catalogue=_read_catalogue(_records(builder, "catalogue")),
        interactions=_read_histories(_records(builder, "histories")),
        dropped=metadata["dropped"],
        ordered_only=metadata["ordered_only"],
        parts=parts_of(metadata.get("parts")),
    )


def _read_catalogue(records: list[dict[str, Any]]) -> Catalogue:
    attributes = [json.loads(record["attributes"]) for record in records]
    return Catalogue(
        ids=_texts(records, "ids"),
        titles=_texts(records, "titles"),
        attributes={
            name: tuple(value for block in attributes for value in block[name])
            for name in attributes[0]
        },
    )


def _read_histories(records: list[dict[str, Any]]) -> Interactions:
    lengths = np.concatenate([record["lengths"] for record in records])
    return Interactions(
        user_ids=_texts(records, "ids"),
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
        items=np.concatenate([record["items"] for record in records]),
        times=np.concatenate([record["timestamps"] for record in records]),
    )


def _texts(records: list[dict[str, Any]], name: str) -> tuple[str, ...]:
    return tuple(text for record in records for text in json.loads(record[name]))


def _records(builder: SequenceCorpusBuilder[Any], split: str) -> list[dict[str, Any]]:
    source = builder.as_data_source(split=split)
    return [source[position] for position in range(len(source))]


def _array(dtype: type, doc: str) -> tfds.features.Tensor:
    # As bytes: TFDS stores plain tensors number by number in protocol buffers, which is many times slower.
    return tfds.features.Tensor(shape=(None,), dtype=dtype, encoding="bytes", doc=doc)


# Every split of TFDS has all features: a block of items leaves the features of users empty, and vice versa.
_EMPTY = {
    "titles": "[]",
    "attributes": "{}",
    "lengths": np.zeros(0, np.int64),
    "items": np.zeros(0, np.int32),
    "timestamps": np.zeros(0, np.int64),
}


def _catalogue_records(catalogue: Catalogue) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, start in enumerate(range(0, max(1, catalogue.num_items), BLOCK)):
        block = slice(start, start + BLOCK)
        attributes = {name: column[block] for name, column in catalogue.attributes.items()}
        record = {
            "ids": json.dumps(catalogue.ids[block]),
            "titles": json.dumps(catalogue.titles[block]),
            "attributes": json.dumps(attributes),
        }
        yield number, {**_EMPTY, **record}


def _history_records(interactions: Interactions) -> Iterator[tuple[int, dict[str, Any]]]:
    offsets = interactions.offsets
    for number, start in enumerate(range(0, max(1, interactions.num_users), BLOCK)):
        stop = min(start + BLOCK, interactions.num_users)
        span = slice(offsets[start], offsets[stop])
        record = {
            "ids": json.dumps(interactions.user_ids[start:stop]),
            "lengths": np.diff(offsets[start : stop + 1]),
            "items": interactions.items[span],
            "timestamps": interactions.times[span],
        }
        yield number, {**_EMPTY, **record}
