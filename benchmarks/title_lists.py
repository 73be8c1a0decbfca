"""Lists of titles that taggers learn from, and which of them are of one kind.

A tagger is asked about a catalogue only if it learned from none of its kind. Movies and artists are never learned from.
`docs/measured/ready_scanner.md` names the source of each list and its terms.
"""

LANGUAGES = ("de", "fr", "it", "ja", "ru", "pt_br", "es", "pl", "da", "ko", "cs", "sk", "uk", "zh_cn", "fi")
"""Languages that short descriptions of Debian's packages are translated into."""
OFFERS = ("offers_cameras", "offers_computers", "offers_shoes", "offers_watches", "pc_parts", "phones", "retail_demo")
OFFERS += ("electronics", "groceries", "cosmetics")
SHOP = ("office", "industrial", "shop_categories", "shop_offers", *OFFERS)
GAMES = ("anime", "game_items", "mods", "chess", "roleplay")
PRODUCTS = ("products", "shop_composed", "shop_words", "slogans")
ART = ("cmoa", "teenie", "tate", "art_nga")
DEBIAN = ("debian", *(f"debian_{language}" for language in LANGUAGES))
PACKAGES = (*DEBIAN, "scoop", "opam", "links", "repositories")
WORK = ("jobs", "universities")
FOOD = ("dishes", "dishes_described", "beers", "recipes", "foods_usda")
WRITINGS = ("laws_de", "news_zh", "poems_zh", "sayings_zh", "questions_zh", "headlines")
TEXTS = ("gutenberg", "gutenberg_other", "papers", "questions", *WRITINGS)
NAMES = ("brands", "brands_icons", "channels", "standards", "blogs_zh", "places_kinds", "emoji_names", "assistants")
NAMES += ("colors", "customs")
OTHERS = ("devices_pci", "devices_usb", "companies", "places", "things", "things_other", "corpora", "cldr")
CHOSEN_BY = ("apps", "conferences", "museum_events", "smart_home", "topics_zh")
"""Lists that nothing learns from, to choose by among taggers; nothing was chosen by them yet."""
LEARNED = (*SHOP, *GAMES, *PRODUCTS, *ART, *PACKAGES, *WORK, *FOOD, *TEXTS, *NAMES, *OTHERS)
"""Lists that may be learned from: their terms allow it."""
FAR = (*OTHERS, "dishes_described", "slogans", "papers", "questions")
FAR = (*FAR, *(f"debian_{language}" for language in LANGUAGES if language not in ("de", "fr", "ja", "ru", "zh_cn")))
"""Lists that read least like titles of a shop: names with codes, single words, sentences, and most of the many lists of
package descriptions, which together would be a third of all that is drawn."""
LEFT_OUT = {
    "all": (),
    "shop": (*SHOP, *PACKAGES),
    "games": (*GAMES, *ART, *WORK, *FOOD),
    "products": (*PRODUCTS, *OFFERS, *TEXTS),
}
"""Lists that a tagger of this name never sees."""
MORE = (*OFFERS, *WRITINGS, *NAMES, "mods", "chess", "roleplay", "art_nga", "scoop", "opam", "links", "repositories")
MORE += ("recipes", "foods_usda")
"""Lists that came last; a tagger without them tells what they are worth."""
GROUPS = LEFT_OUT | {"far": FAR, "shop_and_games": (*SHOP, *GAMES), "made": PRODUCTS, "more": MORE}
"""Lists that go by one name where lists are left out."""
