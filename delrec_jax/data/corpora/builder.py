"""TFDS builders of sequence corpora, written and read without TensorFlow.

A corpus is two splits of ArrayRecord files: `catalogue` (one record an item) and
`histories` (one a user). A subclass only says how to parse its source; where the files
go, in which form, and how they are read is the same for all.
"""

import abc
import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

import grain
import numpy as np
import tensorflow_datasets as tfds

from delrec_jax.data.interactions import Catalogue, Corpus, from_rows

Settings = TypeVar("Settings")


class SequenceCorpusBuilder(tfds.core.GeneratorBasedBuilder, Generic[Settings]):
    """Base of all corpora: items with title and attributes, users with timed items.

    Attributes:
      settings: What `parse` needs to know. TFDS does not record it, so whoever picks
        `data_dir` must give each content a folder of its own (`corpora.load_corpus`).
    """

    VERSION = tfds.core.Version("1.0.0")  # of the record layout below

    def __init__(self, *, settings: Settings, data_dir: str | os.PathLike[str]):
        self.settings = settings
        # The default format, tfrecord, is the one that needs TensorFlow.
        super().__init__(data_dir=data_dir, file_format="array_record")

    @abc.abstractmethod
    def parse(self) -> Corpus:
        """Reads the source; called once, when the corpus is prepared.

        Raises:
          UserError: if the source is at fault.
        """

    def prepare(self) -> None:
        """Writes the records unless they are there; an interrupted write leaves none."""
        # TFDS reports every preparation on standard output, which is the command line's.
        with contextlib.redirect_stdout(io.StringIO()):
            tfds.disable_progress_bar()
            self.download_and_prepare()

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "id": tfds.features.Text(),
            "title": tfds.features.Text(),
            "attributes": tfds.features.Text(doc="JSON object: name to value"),
            "user": tfds.features.Text(),
            "items": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "timestamps": tfds.features.Tensor(shape=(None,), dtype=np.int64),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # the position of a record is the number of its item or user
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        del dl_manager  # nothing is downloaded
        corpus = self.parse()
        self.info.metadata.update(name=corpus.name, dropped=dict(corpus.dropped))
        return {
            "catalogue": _catalogue_records(corpus.catalogue),
            "histories": _history_records(corpus),
        }

    def _generate_examples(self) -> Iterator[tuple[int, dict]]:
        raise NotImplementedError("the splits are generated from one parsed corpus")


def read_corpus(builder: SequenceCorpusBuilder) -> Corpus:
    """Reads a prepared corpus back from its records.

    Args:
      builder: A builder whose `prepare` has run.

    Returns:
      What `parse` returned when it was prepared.
    """
    items = _records(builder, "catalogue")
    users = _records(builder, "histories")
    attributes = [json.loads(item["attributes"]) for item in items]
    names = attributes[0] if attributes else {}
    catalogue = Catalogue(
        ids=tuple(item["id"].decode() for item in items),
        titles=tuple(item["title"].decode() for item in items),
        attributes={name: tuple(values[name] for values in attributes) for name in names},
    )
    interactions = from_rows(
        [user["user"].decode() for user in users],
        [user["items"] for user in users],
        [user["timestamps"] for user in users],
    )
    metadata: Mapping[str, Any] = builder.info.metadata
    return Corpus(metadata["name"], catalogue, interactions, metadata["dropped"])


def _records(builder: SequenceCorpusBuilder, split: str) -> list[dict[str, Any]]:
    source = grain.MapDataset.source(builder.as_data_source(split=split))
    # By position: grain's iterator keeps hundreds of threads' reads in flight, which takes
    # several times as long for records as small as these.
    return [source[position] for position in range(len(source))]


# A split of TFDS has all features: an item leaves those of users empty, and vice versa.
_NO_ITEM = {"id": "", "title": "", "attributes": ""}
_NO_USER = {"user": "", "items": np.zeros(0, np.int32), "timestamps": np.zeros(0, np.int64)}


def _catalogue_records(catalogue: Catalogue) -> Iterator[tuple[int, dict]]:
    for index, (item, title) in enumerate(zip(catalogue.ids, catalogue.titles, strict=True)):
        values = {name: column[index] for name, column in catalogue.attributes.items()}
        record = {"id": item, "title": title, "attributes": json.dumps(values)}
        yield index, {**record, **_NO_USER}


def _history_records(corpus: Corpus) -> Iterator[tuple[int, dict]]:
    interactions = corpus.interactions
    for user, name in enumerate(interactions.user_ids):
        span = slice(interactions.offsets[user], interactions.offsets[user + 1])
        record = {
            "user": name,
            "items": interactions.items[span],
            "timestamps": interactions.times[span],
        }
        yield user, {**record, **_NO_ITEM}
