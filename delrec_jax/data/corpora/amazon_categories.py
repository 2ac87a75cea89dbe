"""The categories of each edition of the Amazon reviews, as named in its files."""

import difflib
from collections.abc import Mapping

from delrec_jax.errors import UserError

_IN_ALL = (
    "Automotive",
    "Books",
    "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories",
    "Clothing_Shoes_and_Jewelry",
    "Digital_Music",
    "Electronics",
    "Grocery_and_Gourmet_Food",
    "Home_and_Kitchen",
    "Kindle_Store",
    "Movies_and_TV",
    "Musical_Instruments",
    "Office_Products",
    "Patio_Lawn_and_Garden",
    "Pet_Supplies",
    "Sports_and_Outdoors",
    "Tools_and_Home_Improvement",
    "Toys_and_Games",
    "Video_Games",
)
_SINCE_2018 = (
    "All_Beauty",
    "Appliances",
    "Arts_Crafts_and_Sewing",
    "Gift_Cards",
    "Industrial_and_Scientific",
    "Magazine_Subscriptions",
    "Software",
)
CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "2014": (
        *_IN_ALL,
        "Amazon_Instant_Video",
        "Apps_for_Android",
        "Baby",
        "Beauty",
        "Health_and_Personal_Care",
    ),
    "2018": (*_IN_ALL, *_SINCE_2018, "AMAZON_FASHION", "Luxury_Beauty", "Prime_Pantry"),
    "2023": (
        *_IN_ALL,
        *_SINCE_2018,
        "Amazon_Fashion",
        "Baby_Products",
        "Beauty_and_Personal_Care",
        "Handmade_Products",
        "Health_and_Household",
        "Health_and_Personal_Care",
        "Subscription_Boxes",
        "Unknown",
    ),
}


def config_name(edition: str, category: str) -> str:
    """The name of the TFDS configuration of a category, such as "home-and-kitchen-2014"."""
    return f"{category}-{edition}".lower().replace("_", "-")


def check_category(edition: str, category: str) -> None:
    """Checks that an edition has a category.

    Raises:
      UserError: listing the editions, or the categories and the nearest of them.
    """
    if edition not in CATEGORIES:
        raise UserError(f"data.edition: {edition!r} is none of {', '.join(CATEGORIES)} (Amazon)")
    known = CATEGORIES[edition]
    if category not in known:
        near = _nearest(category, known)
        raise UserError(
            f"data.category: {category!r} is not a category of Amazon {edition}; "
            f"the nearest is {near!r}, all are {', '.join(sorted(known))}"
        )


def _nearest(name: str, known: tuple[str, ...]) -> str:
    folded = {known_name.lower(): known_name for known_name in known}
    wanted = name.lower()
    within = [known_name for known_name in folded if wanted and wanted in known_name]
    near = difflib.get_close_matches(wanted, within or folded, n=1, cutoff=0.0)
    return folded[near[0]]
