"""The settings of a corpus."""

import dataclasses

from delrec_jax.data.corpora.storefront_world import StorefrontConfig


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which corpus, and what is kept of it.

    Attributes:
      corpus: "storefront" (generated), "movielens", "steam", "amazon" (downloaded), "atomic" (RecBole atomic files) or
        "csv" (a pair of your own).
      path: For "atomic" a folder NAME with NAME.inter and NAME.item, or their prefix; for "csv" a folder with
        interactions.csv and items.csv.
      edition: For "movielens" 100k or 1m; for "steam" llara or ucsd; for "amazon" 2014, 2018 or 2023.
      category: For "amazon", such as Beauty or Home_and_Kitchen.
      manual_dir: A folder that has the raw files already; nothing is downloaded then.
      download_dir: Cache of downloads; "" is ~/.cache/delrec_jax.
      domain: What the items are called in prompts: movies, games, items or home.
      min_rating: Rows rated lower are left out; 0 keeps all and needs no ratings.
      k_core: Users and items with fewer interactions are left out until none is; 0 is off.
      min_length: Users with fewer interactions are left out.
      max_users: A seeded sample of so many users; 0 takes all.
      repeats: Of a user's interactions with one item the "first" or "last" is kept, or all ("keep").
      time_ties: A user's interactions at one time stand in the order of the "file", or of the "item" ids.
      storefront: For "storefront": size and process of the world.
      seed: Of the world, or of the sample of users.
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
