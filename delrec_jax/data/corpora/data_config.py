"""The settings of a corpus."""

import dataclasses

from delrec_jax.data.corpora.storefront_world import StorefrontConfig

CORPORA = ("storefront", "movielens", "steam", "amazon", "atomic", "csv")
REPEATS = ("first", "last", "keep")
TIME_TIES = ("file", "item")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which corpus to use, and what to keep of it.

    Attributes:
      corpus: "storefront" (generated), "movielens", "steam", "amazon" (downloaded), "atomic" (RecBole atomic files) or
        "csv" (your own pair of files).
      path: For "atomic" a folder NAME with NAME.inter and NAME.item, or their prefix; for "csv" a folder with
        interactions.csv and items.csv.
      edition: For "movielens" 100k or 1m; for "steam" llara or ucsd; for "amazon" 2014, 2018 or 2023.
      category: For "amazon", such as Beauty or Home_and_Kitchen.
      manual_dir: A folder that already has the raw files; nothing is downloaded then.
      download_dir: The cache of downloads; "" is ~/.cache/delrec_jax.
      domain: What the items are called in prompts: movies, games, items or home.
      min_rating: Rows with a lower rating are left out; 0 keeps all and needs no ratings.
      k_core: Users and items with fewer interactions are left out until none has fewer; 0 is off.
      min_length: Users with fewer interactions are left out.
      max_users: The size of a seeded sample of users; 0 takes all.
      repeats: Which of a user's interactions with the same item is kept: the "first", the "last", or all ("keep").
      time_ties: The order of a user's interactions in the same second: that of the "file" (or of parts of a second, where the
        source has them), or of the "item" ids.
      storefront: For "storefront": the size of the world and its process.
      seed: The seed of the world, or of the sample of users.
    """

    corpus: str = "storefront"
    path: str = ""
    edition: str = ""
    category: str = ""
    manual_dir: str = ""
    download_dir: str = ""
    domain: str = "items"
    min_rating: float = 0.0
    k_core: int = 0
    min_length: int = 3
    max_users: int = 0
    repeats: str = "first"
    time_ties: str = "file"
    storefront: StorefrontConfig = StorefrontConfig()
    seed: int = 0
