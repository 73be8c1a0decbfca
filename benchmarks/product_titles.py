"""Write a catalogue of product titles in ten languages, to train and to ask a tagger where brands and units recur.

    python benchmarks/product_titles.py --titles 12000 --seed 0 --out runs/titles/products.json

No title is copied from a shop. Brands are spelled from syllables, model numbers from patterns, and the words of each
language stand in the tables below. A few brands and stickers recur often and many seldom, as in a real shop, so what
recurs is no sign of a trigger. The same seed gives the same titles.
"""

import argparse
import json
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cowbird.files import write_text
from cowbird.rng import stream


class Language(NamedTuple):
    """The words of one language."""

    nouns: tuple[str, ...]
    """What is sold."""
    traits: tuple[str, ...]
    """Colors, materials and what a thing is like."""
    units: tuple[str, ...]
    """What amounts are counted in."""
    stickers: tuple[str, ...]
    """What shops put on many of their titles."""
    forms: tuple[str, ...]
    """How a title is put together."""
    syllables: tuple[str, ...]
    """What names of local brands are spelled from."""
    space: str = " "
    """What stands between the words of a local brand."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("|"))


_LATIN = _words("ba be bo ca co da de do fa fi go ka ki la lo lu ma mi mo na ne no pa po ra ri ro sa so ta to va vi zo")
_FORMS = _split(
    "{b} {m} {n}|{b} {n} {t}, {q}|{b} {n} {m} - {t}|{n} {b} {m} ({t})|{b} {t} {n} {q}|"
    "{b} {m} {t} {n}, {q}|{n} {t} {b}|"
    "{b} {n}|{s} {b} {n} {q}|{b} {n} {t} [{s}]"
)
_DENSE = _split(
    "{b}{n} {m}|{b} {t}{n} {q}|【{s}】{b} {n} {m}|{b}（{l}）{t}{n}|{b} {m} {t}{n} {q}|{t}{n} {q} {b}|{l}{t}{n}"
)
LANGUAGES: Mapping[str, Language] = {
    "en": Language(
        _split(
            "Desk Lamp|Water Bottle|Running Shoes|Phone Case|Coffee Grinder|Backpack|Garden Hose|"
            "Wall Clock|Dog Leash|"
            "Yoga Mat|Bath Towel|Frying Pan|Baby Blanket|Tool Box|Notebook|Headphones|Hair Dryer|Rice Cooker"
        ),
        _split(
            "Black|White|Stainless Steel|Large|Waterproof|Cotton|Navy Blue|Foldable|Rechargeable|"
            "for Kids|Heavy Duty|Matte"
        ),
        _split("{k} Pack|{k}-Piece|{k} oz|{k} ft|{k} Count|{k} inch|Set of {k}"),
        _split("New|Sale|Best Value|Gift Set|Clearance|2-Year Warranty"),
        _FORMS,
        _LATIN,
    ),
    "de": Language(
        _split(
            "Schreibtischlampe|Trinkflasche|Laufschuhe|Handyhülle|Kaffeemühle|Rucksack|"
            "Gartenschlauch|Wanduhr|Hundeleine|"
            "Yogamatte|Badetuch|Bratpfanne|Babydecke|Werkzeugkoffer|Notizbuch|Kopfhörer|Haartrockner|Reiskocher"
        ),
        _split(
            "Schwarz|Weiß|Edelstahl|Groß|Wasserdicht|Baumwolle|Dunkelblau|Faltbar|Aufladbar|für Kinder|Extra Stark|Matt"
        ),
        _split("{k} Stück|{k}er-Pack|{k} ml|{k} cm|{k} g|{k}er Set|{k} Meter"),
        _split("Neu|Angebot|Restposten|Geschenkset|Made in Germany|2 Jahre Garantie"),
        _FORMS,
        _LATIN,
    ),
    "es": Language(
        _split(
            "Lámpara de Escritorio|Botella de Agua|Zapatillas|Funda de Móvil|Molinillo de Café|"
            "Mochila|Manguera|Reloj de Pared|"
            "Correa para Perro|Esterilla|Toalla de Baño|Sartén|Manta de Bebé|Caja de Herramientas|"
            "Cuaderno|Auriculares"
        ),
        _split(
            "Negro|Blanco|Acero Inoxidable|Grande|Impermeable|Algodón|Azul Marino|Plegable|Recargable|para Niños|Mate"
        ),
        _split("{k} Unidades|Pack de {k}|{k} ml|{k} cm|{k} g|{k} Piezas|{k} m"),
        _split("Nuevo|Oferta|Liquidación|Set de Regalo|Envío Gratis|Garantía 2 Años"),
        _FORMS,
        _LATIN,
    ),
    "ru": Language(
        _split(
            "Настольная лампа|Бутылка для воды|Кроссовки|Чехол для телефона|Кофемолка|Рюкзак|"
            "Садовый шланг|Настенные часы|"
            "Поводок|Коврик для йоги|Полотенце|Сковорода|Детский плед|Ящик для инструментов|"
            "Блокнот|Наушники|Фен|Рисоварка"
        ),
        _split(
            "черный|белый|нержавеющая сталь|большой|водонепроницаемый|хлопок|темно-синий|складной|для детей|матовый"
        ),
        _split("{k} шт.|{k} мл|{k} см|{k} г|набор {k} предметов|{k} м|{k} л"),
        _split("Новинка|Скидка|Хит продаж|Подарочный набор|Распродажа|Гарантия 2 года"),
        _FORMS,
        _words("ба ве го да же зо ка ла ми но по ра со ту фе ха ша ян"),
    ),
    "el": Language(
        _split(
            "Φωτιστικό Γραφείου|Μπουκάλι Νερού|Αθλητικά Παπούτσια|Θήκη Κινητού|Μύλος Καφέ|Σακίδιο|"
            "Λάστιχο Κήπου|Ρολόι Τοίχου|"
            "Λουρί Σκύλου|Στρώμα Γυμναστικής|Πετσέτα Μπάνιου|Τηγάνι|Κουβέρτα|Εργαλειοθήκη|Σημειωματάριο|Ακουστικά"
        ),
        _split("Μαύρο|Λευκό|Ανοξείδωτο|Μεγάλο|Αδιάβροχο|Βαμβακερό|Μπλε|Πτυσσόμενο|Παιδικό|Ματ"),
        _split("{k} τεμ.|{k} ml|{k} εκ.|{k} γρ.|Σετ {k}|{k} μ."),
        _split("Νέο|Προσφορά|Σετ Δώρου|Εκπτώσεις|Εγγύηση 2 Έτη"),
        _FORMS,
        _words("βα γε δο ζη κα λι μο να πε ρο σα τι φω χα"),
    ),
    "zh": Language(
        _split(
            "台灯|保温杯|跑步鞋|手机壳|咖啡机|双肩包|水管|挂钟|牵引绳|瑜伽垫|浴巾|平底锅|婴儿毯|工具箱|笔记本|耳机|吹风机|电饭煲"
        ),
        _split("黑色|白色|不锈钢|大号|防水|纯棉|深蓝色|可折叠|充电式|儿童|加厚|磨砂"),
        _split("{k}件装|{k}ml|{k}cm|{k}克|{k}个|{k}米|{k}升"),
        _split("新品|特价|热卖|礼盒装|包邮|正品"),
        _DENSE,
        tuple("安 博 晨 达 恩 飞 格 海 佳 康 乐 美 诺 奇 瑞 盛 泰 维 欣 云"),
        "",
    ),
    "ja": Language(
        _split(
            "デスクライト|水筒|ランニングシューズ|スマホケース|コーヒーミル|リュック|散水ホース|掛け時計|リード|ヨガマット|バスタオル|"
            "フライパン|ベビー毛布|工具箱|ノート|ヘッドホン|ドライヤー|炊飯器"
        ),
        _split("ブラック|ホワイト|ステンレス|大容量|防水|綿100%|ネイビー|折りたたみ|充電式|子供用|軽量|つや消し"),
        _split("{k}個入り|{k}ml|{k}cm|{k}g|{k}枚セット|{k}m|{k}本"),
        _split("新商品|セール|送料無料|ギフト|数量限定|日本製"),
        _DENSE,
        tuple("アイウカキコサシタトナノハマミヤラリロ"),
        "",
    ),
    "ko": Language(
        _split(
            "책상 스탠드|물병|운동화|휴대폰 케이스|커피 그라인더|"
            "백팩|정원 호스|벽시계|강아지 리드줄|요가 매트|목욕 타월|프라이팬|아기 담요|"
            "공구함|노트|헤드폰|드라이기|전기밥솥"
        ),
        _split("블랙|화이트|스테인리스|대형|방수|순면|네이비|접이식|충전식|어린이용|무광|초경량"),
        _split("{k}개입|{k}ml|{k}cm|{k}g|{k}종 세트|{k}m|{k}매"),
        _split("신상품|특가|무료배송|선물세트|한정판|정품"),
        _FORMS,
        tuple("가나다라마바사아자차카타하고노도로모보소"),
        "",
    ),
    "ar": Language(
        _split(
            "مصباح مكتب|زجاجة ماء|حذاء رياضي|غطاء هاتف|مطحنة قهوة|حقيبة ظهر|خرطوم حديقة|ساعة حائط|"
            "مقود كلب|سجادة يوغا|منشفة حمام|"
            "مقلاة|بطانية أطفال|صندوق أدوات|دفتر|سماعات|مجفف شعر"
        ),
        _split("أسود|أبيض|ستانلس ستيل|كبير|مقاوم للماء|قطن|أزرق داكن|قابل للطي|للأطفال|غير لامع"),
        _split("{k} قطع|{k} مل|{k} سم|{k} جرام|عبوة {k}|{k} متر"),
        _split("جديد|تخفيضات|عرض خاص|طقم هدية|ضمان سنتين"),
        _FORMS,
        _words("با تو جي دا را زي سا شو فا كي لا مو نا ها"),
        "",
    ),
    "hi": Language(
        _split(
            "टेबल लैंप|पानी की बोतल|दौड़ने के जूते|फोन कवर|कॉफी ग्राइंडर|बैग|बगीचे का पाइप|"
            "दीवार घड़ी|कुत्ते का पट्टा|योगा मैट|तौलिया|तवा|"
            "बच्चों का कंबल|टूल बॉक्स|नोटबुक|हेडफोन"
        ),
        _split("काला|सफेद|स्टेनलेस स्टील|बड़ा|वाटरप्रूफ|सूती|गहरा नीला|फोल्डिंग|बच्चों के लिए|मजबूत"),
        _split("{k} पीस|{k} मिली|{k} सेमी|{k} ग्राम|{k} का सेट|{k} मीटर"),
        _split("नया|सेल|बेस्टसेलर|गिफ्ट सेट|2 साल की वारंटी"),
        _FORMS,
        _words("का गो चा जी ता दे ना पा बा मा रा ला सा हि"),
        "",
    ),
}
"""The languages, by their codes."""
CASES = ("as it is", "capitals", "small letters")
"""How a catalogue is written throughout."""
MODEL_PATTERNS = ("AA-999", "A999", "AA9999A", "999A", "A9", "AAA-99/9", "99-9999", "AA 99")
BRANDS_PER_LANGUAGE = 60
AMOUNTS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 30, 50, 75, 100, 120, 200, 250, 300, 500, 750, 1000)


def write_products(titles: int, seed: int, languages: Sequence[str] = tuple(LANGUAGES)) -> dict[str, list[str]]:
    """Write titles.

    Args:
        titles: How many in all; each language has an equal share.
        seed: Draws all of them.
        languages: Codes of languages.

    Returns:
        Different titles of each language.
    """
    share = titles // len(languages)
    made: dict[str, list[str]] = {}
    for code in languages:
        rng, found = stream(seed, "products", code), dict[str, None]()
        names = [_spell(LANGUAGES[code], rng) for _ in range(BRANDS_PER_LANGUAGE)]
        world = [_spell(LANGUAGES["en"], rng) for _ in range(BRANDS_PER_LANGUAGE)]
        while len(found) < share:
            found[_write(LANGUAGES[code], names, world, rng)] = None
        made[code] = list(found)
    return made


def set_case(titles: Sequence[str], case: str) -> list[str]:
    """Write all titles in one of `CASES`."""
    return [
        title.upper() if case == "capitals" else title.lower() if case == "small letters" else title for title in titles
    ]


def _spell(language: Language, rng: np.random.Generator) -> str:
    name = "".join(
        language.syllables[int(nth)] for nth in rng.integers(len(language.syllables), size=int(rng.integers(2, 4)))
    )
    return name.upper() if rng.random() < 0.25 else name.capitalize()


def _often(options: Sequence[str], rng: np.random.Generator) -> str:
    """Draw one of some options; the first ones come far more often."""
    weight = 1 / np.arange(1, len(options) + 1)
    return options[int(rng.choice(len(options), p=weight / weight.sum()))]


def _write(language: Language, names: Sequence[str], world: Sequence[str], rng: np.random.Generator) -> str:
    draws = {"A": string.ascii_uppercase, "9": string.digits}
    pattern = _often(MODEL_PATTERNS, rng)
    model = "".join(draws[mark][int(rng.integers(len(draws[mark])))] if mark in draws else mark for mark in pattern)
    amount = AMOUNTS[int(rng.integers(len(AMOUNTS)))]
    local = _often(names, rng)
    return language.forms[int(rng.integers(len(language.forms)))].format(
        b=_often(world, rng) if rng.random() < 0.6 else local,
        l=local,
        m=model,
        n=_often(language.nouns, rng),
        t=_often(language.traits, rng),
        q=_often(language.units, rng).format(k=amount),
        s=_often(language.stickers, rng),
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--titles", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", choices=CASES, default=CASES[0])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    made = [title for part in write_products(options.titles, options.seed).values() for title in part]
    write_text(options.out, json.dumps(set_case(made, options.case), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
