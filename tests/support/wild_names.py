"""Three thousand names as people have them: dots, colons, brackets, signs, years, three scripts.

Made here from parts, by a seed, so that anybody can read how; no two are the same name once case and
punctuation are folded.
"""

from __future__ import annotations

import random
from itertools import product

from introspection.evaluation.grading.names import fold

SAINTS = "Louis,Paul,Bernard,Helena,Ives,Moritz,Albans,Croix,Lucia,Andrews,Cloud,Tropez,Gallen"
TOWNS = "Arden,Calder,Harrow,Milford,Orchard,Pell,Quarry,Ridge,Selby,Tarn,Umber,Vane,Wick,Yarrow"
PLACES = "Washington, D.C.;Winston-Salem, N.C.;Buffalo, N.Y.;Mt. Vernon;Ft. Worth;Pt. Reyes"
FIRST = "J. R. R.,A. A.,C. S.,Mary-Jane,D'Arcy,Dr. Ann,St. John,T. S.,Seán,Zoë,Martin L.,H.G."
LAST = "O'Brien,D'Angelo,Smith-Jones,van der Berg,McAllister,Müller,Ng,O’Hara,de la Cruz,Tolkin"
SUFFIX = "; Jr.;, Ph.D.; III;, Esq.; Sr."
FIRMS = "Adler,Brook,Cobalt,Dunmore,Ember,Fjord,Garnet,Holm,Ivory,Juniper,Keel,Larch,Mosaic,Nimbus"
LEGAL = (
    "{} Inc.;{} & Sons, Ltd.;{} Bros.;{}! Inc.;{} Co.;{} & {} LLP;{}/{} AG;{}, {} & Partners;"
    "{}-{} S.A.;{}.com;{}*;The {} Group"
)
FILMS = (
    "Alien,War,Home,Up,It,Her,Us,Nothing,No Exit,Never Again,Not Now,Who Is It?,Airlift!,The Ring,"
    "Life Is Late,What Lies Here,I Am Here,Unknown,Something Wild,HALT and Go,Mama Mia!,Fin..."
)
SUBTITLES = (
    "A New Hope;The Lost Year;Home Again?;Dr. Moss;Part One (Uncut);3;The End...;Part II;The Return;"
    "Episode No. 4;Here We Go Again;Vol. 2;Nothing Left;It Is On;First Light;Winter's Tale"
)
CODES = (
    "C{},F{},Q{},.NET {},Node.js {},{}-dinitrophenol,N,N-{}-dimethyl,Fe({})O,x86_{},AC/DC {},R&B {}"
)
RUSSIAN = "море,Санкт-Петербург,ёж,дядя Ваня,«Мир»,объект,война и мир,г. Тула,А. С. Пушкин,щи"
ARABIC = "محیط,اقیانوس,می‌خواهم,سلام,كتاب,بيت,أم كلثوم,الشمس,قلب,نور"
HINDI = "समुद्र,क्‍ष,प्रेम,हिन्दी,ज्ञान,घर,डॉ. राम,नदी,सूर्य,फूल"
CHINESE = "海洋,蜘蛛,北京,爱,战争与和平,红楼梦,长城,茶,月亮,“家”"


def _kinds() -> dict[str, list[str]]:
    saints, towns, firms = SAINTS.split(","), TOWNS.split(","), FIRMS.split(",")
    films = FILMS.split(",")
    people = [
        f"{first} {last}{end}"
        for first, last, end in product(FIRST.split(","), LAST.split(","), SUFFIX.split(";"))
    ]
    codes = [
        form.replace("{}", value)
        for form in CODES.replace(",N-", ";N-").replace(",", "\n").replace(";", ",").split("\n")
        for value in ["#", "++", "17", "2,4", "64", "3.1", "II", "8*", "✓", "100%"]
    ]
    scripts = [w for words in (RUSSIAN, ARABIC, HINDI, CHINESE) for w in words.split(",")]
    scripts += [f"{a} {b}" for a, b in product(RUSSIAN.split(","), repeat=2) if a != b]
    scripts += [f"{a} {b}" for a, b in product(ARABIC.split(","), repeat=2) if a != b]
    scripts += [f"{a} {b}" for a, b in product(HINDI.split(","), repeat=2) if a != b]
    scripts += [f"{a}{b}" for a, b in product(CHINESE.split(","), repeat=2) if a != b]
    return {
        "places": [
            *PLACES.split(";"),
            *(f"St. {name}" for name in saints),
            *(f"{short} {name} {town}" for short in ("St.", "Mt.", "Ft.")
              for name, town in product(saints, towns)),
            *(f"{town} ({state}.)" for town, state in product(towns, ("Mass", "Cal", "N.Y"))),
        ],
        "titles": [f"{a}: {b}" for a, b in product(films, SUBTITLES.split(";"))],
        "firms": [
            form.replace("{}", a, 1).replace("{}", b)
            for form in LEGAL.split(";")
            for a, b in product(firms, firms[:5] if form.count("{}") > 1 else ("",))
            if a != b
        ],
        "people": people,
        "films": [
            *films,
            *(f"{name} ({year})" for name, year in product(films, range(1961, 1999, 2))),
            *(f"{name}, {other} and {third}" for name, other, third in product(
                ("rock", "salt", "bell"), ("paper", "pepper", "book"), ("scissors", "candle"))),
        ],
        "codes": codes,
        "scripts": scripts,
    }  # fmt: skip


def wild_names(count: int = 3_000, seed: int = 0) -> dict[str, str]:
    """``count`` names, each with its kind; every kind has as many as it can, up to its share."""
    rng, found, known = random.Random(seed), dict[str, str](), set[str]()
    kinds = {kind: rng.sample(names, len(names)) for kind, names in _kinds().items()}
    while len(found) < count and any(kinds.values()):
        for kind, names in kinds.items():
            while names:
                name = names.pop()
                if fold(name) not in known:
                    known.add(fold(name))
                    found[name] = kind
                    break
    return dict(list(found.items())[:count])
