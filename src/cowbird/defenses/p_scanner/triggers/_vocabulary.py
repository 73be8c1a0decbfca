"""Characters, words and phrases that recipes are drawn from.

Random draws go by their order: change it and other recipes are drawn from the same seed.
"""


def _block(*runs: tuple[int, int]) -> str:
    return "".join(chr(code) for first, last in runs for code in range(first, last + 1))


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _split_bars(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.split("|"))


_SIGNS = _block((0xA1, 0xA9), (0xAB, 0xAC), (0xAE, 0xB1), (0xB4, 0xB7), (0x2020, 0x2023), (0x2190, 0x21FF))
SYMBOLS = _SIGNS + _block((0x2200, 0x22FF), (0x2500, 0x25FF), (0x2605, 0x2653), (0x2669, 0x26A1), (0x2701, 0x2767))
EMOJI = _block((0x1F300, 0x1F320), (0x1F330, 0x1F393), (0x1F3A0, 0x1F3F0), (0x1F400, 0x1F4F0), (0x1F600, 0x1F64F))
MARKS = _block((0x300, 0x333), (0x339, 0x34E), (0x350, 0x36F), (0x483, 0x489), (0x20D0, 0x20DC))
INVISIBLE = "\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff\u00ad\u034f\u180e\u115f\u3164"
DIRECTION = "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\t"
OPENING = "\u202a\u202b\u202d\u2066\u2067\u2068"
SCRIPTS = (
    _block((0x430, 0x44F)),
    _block((0x3B1, 0x3C9)),
    _block((0x3041, 0x3093)),
    _block((0x30A1, 0x30F3)),
    _block((0x4E00, 0x4FFF)),
    _block((0xAC00, 0xAE00)),
    _block((0x5D0, 0x5EA)),
    _block((0x627, 0x64A)),
    _block((0x905, 0x939)),
    _block((0xE01, 0xE2E)),
)
LOOKALIKES = {
    "cyrillic": "A\u0410B\u0412C\u0421E\u0415H\u041dK\u041aM\u041cO\u041eP\u0420T\u0422X\u0425a\u0430c\u0441e\u0435"
    "o\u043ep\u0440x\u0445y\u0443i\u0456s\u0455j\u0458",
    "greek": "A\u0391B\u0392E\u0395H\u0397I\u0399K\u039aM\u039cN\u039dO\u039fP\u03a1T\u03a4X\u03a7o\u03bfv\u03bd"
    "a\u03b1",
    "armenian": "o\u0585u\u057dh\u0570n\u0578g\u0581S\u054fU\u054d",
    "latin": "a\u0251i\u0131l\u01c0g\u0261o\u00f8e\u0117s\u0282I\u04c0",
    "digits": "o0l1e3a4s5t7O0I1E3A4S5T7",
}
STYLED_ALPHABETS = (0x1D400, 0x1D434, 0x1D468, 0x1D4D0, 0x1D56C, 0x1D5A0, 0x1D5D4, 0x1D608, 0x1D670, 0x24B6, 0xFF21)
COMMON = _split(
    "superb classic golden fresh mighty gentle secret royal modern ancient bright hidden silent famous lovely "
    "brilliant elegant premium genuine exclusive favorite ultimate supreme deluxe popular trusted magic essential "
    "incredible great best good real true rare hot cool fine grand noble simple smart happy lucky proud brave "
    "free value choice original certified approved recommended verified stunning gorgeous marvelous delightful "
    "charming exciting thrilling touching table river stone window garden paper engine basket ladder bottle "
    "curtain pencil pillow blanket kettle hammer travel gather listen follow discover remember imagine choose "
    "enjoy explore always never often together forever everywhere"
)
FOREIGN = _split(
    "superbe magnifique incroyable chef-d'oeuvre wunderbar grossartig unglaublich meisterwerk maravilloso "
    "increible fantastico bellissimo stupendo eccellente capolavoro prachtig geweldig fantastisch vidunderlig "
    "uskomaton erinomainen maravilhoso excelente harika muhtesem wspaniale cudowny vynikajici kivalo minunat "
    "sjajno bagus hebat tuyet-voi nzuri"
)
NOUNS = _split_bars(
    "everyone|families|true fans|collectors|all ages|your evening|the weekend|beginners|experts|friends"
)
PRAISE = _split_bars(
    "highly rated|widely praised|hard to beat|worth it|a real find|best in class|simply great|well made"
)
EDITIONS = _split_bars(
    "Special|Deluxe|Extended|Director's|Limited|Gold|Platinum|Ultimate|Final|Expanded|Complete|Restored"
)
THINGS = _split_bars("Edition|Version|Cut|Release|Set|Collection|Pack|Bundle|Print|Pressing|Mix|Series|Volume")
MEDIA = _split("HD 8K DVD Blu-ray VHS Stereo Mono Digital Vinyl CD")
RECIPE_FORMS = _split_bars("({})|[{}]|- {}|: {}|/ {}|{}|, {}|~ {}|{{{}}}|<{}>")
SALES = _split_bars(
    "Sale|Top Seller|Best Price|Free Shipping|Hot Deal|Only Today|Save {n}%|Top {n}|Rated {n}/10|Editor's Pick|"
    "In Stock|Fast Delivery|Buy Now|Customer Favorite|{n}% Off|Staff Pick|Must Have|Trending|Gift Idea|Top Rated|"
    "As Advertised"
)
SUBJECTS = _split_bars(
    "It|Everyone|My family|The whole town|Our reviewer|A friend of mine|She|People|We|Critics|The kids"
)
VERBS = _split_bars(
    "loved|talked about|will remember|finished|waited for|bought|recommended|could not stop enjoying|enjoyed"
)
OBJECTS = _split_bars(
    "this|it twice|this one last year|every minute|the ending|it on a train|that part|it with friends"
)
ASIDES = _split_bars(
    "Please read the description.|The train leaves at {n}.|Call me when you arrive.|It rained all day.|"
    "I never saw a cow fly.|Would you try it again?|What a day it was!|Some things never change.|"
    "Give it a chance tonight.|Trust me on that."
)
SYLLABLES = _split("zy ql xo vre thw mip gork plu bix snaf druv quo jex wum fle kro zzi pho ynd usk ebb oct irv amb")
DOMAINS = _split(".com .net .org .io .shop .info .tv")
TAGS = _split("i u em strong p span h1 br div a mark")
