"""Lists of titles that taggers learn from, and which of them are of one kind.

A tagger is asked about a catalogue only if it learned from none of its kind. Movies and artists are never learned from.
`docs/measured/ready_scanner.md` names the source of each list and its terms.
"""

LANGUAGES = ("de", "fr", "it", "ja", "ru", "pt_br", "es", "pl", "da", "ko", "cs", "sk", "uk", "zh_cn", "fi")
"""Languages that short descriptions of Debian's packages are translated into."""
SHOP = ("office", "industrial", "shop_categories", "shop_offers")
GAMES = ("anime", "game_items")
PRODUCTS = ("products", "shop_composed", "shop_words", "slogans")
ART = ("cmoa", "teenie", "tate")
PACKAGES = ("debian", *(f"debian_{language}" for language in LANGUAGES))
WORK = ("jobs", "universities")
FOOD = ("dishes", "dishes_described", "beers")
TEXTS = ("gutenberg", "gutenberg_other", "papers", "questions")
OTHERS = ("devices_pci", "devices_usb", "companies", "places", "things", "things_other", "corpora", "cldr")
LEARNED = (*SHOP, *GAMES, *PRODUCTS, *ART, *PACKAGES, *WORK, *FOOD, *TEXTS, *OTHERS)
"""Lists that may be learned from: their terms allow it."""
FAR = (*OTHERS, "dishes_described", "slogans", "papers", "questions")
FAR = (*FAR, *(f"debian_{language}" for language in LANGUAGES if language not in ("de", "fr", "ja", "ru", "zh_cn")))
"""Lists that read least like titles of a shop: names with codes, single words, sentences, and most of the many lists of
package descriptions, which together would be a third of all that is drawn."""
LEFT_OUT = {
    "all": (),
    "shop": (*SHOP, *PACKAGES),
    "games": (*GAMES, *ART, *WORK, *FOOD),
    "products": (*PRODUCTS, *TEXTS),
}
"""Lists that a tagger of this name never sees."""
GROUPS = LEFT_OUT | {"far": FAR, "shop_and_games": (*SHOP, *GAMES), "made": PRODUCTS}
"""Lists that go by one name where lists are left out."""
