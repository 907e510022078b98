"""What the crowded world holds: objects in categories, styles, grounds, and the words people use for groups of them.

Everything else (pictures, captions, labels, retain lists, the data sheet) is derived from the tables here, so that a
concept is added in one place. An object is named by its English emoji label; names and keywords in other languages come
from the data package (words.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Category -> objects, as "name" or "name=label of the drawing" or "name=label/label whose words count, too".
# Neighbours are meant: what looks alike or is spoken of alike stands side by side.
_TABLE: Final[dict[str, tuple[str, ...]]] = {
    "mammal": (
        *("dog=dog face/dog", "wolf", "fox", "raccoon", "cat=cat face/cat", "tiger=tiger face/tiger", "lion"),
        *("bear", "polar bear", "panda", "koala", "rabbit=rabbit face/rabbit", "hamster", "mouse=mouse face/mouse"),
        *("monkey=monkey face/monkey", "pig=pig face/pig", "cow=cow face/cow", "horse=horse face/horse"),
    ),
    "bird": ("penguin", "owl", "duck", "eagle", "rooster", "parrot", "flamingo"),
    "sea animal": ("whale=spouting whale/whale", "dolphin", "shark", "fish", "octopus", "squid", "crab", "lobster"),
    "reptile": ("turtle", "crocodile", "lizard", "snake"),
    "insect": ("butterfly", "bee=honeybee", "ladybug=lady beetle", "ant", "beetle", "mosquito"),
    "fruit": (
        *("apple=red apple", "pear", "peach", "orange=tangerine", "lemon", "banana"),
        *("strawberry", "cherries", "grapes", "watermelon", "pineapple"),
    ),
    "vegetable": ("carrot", "tomato", "eggplant", "cucumber", "corn=ear of corn", "chili=hot pepper", "broccoli"),
    "dish": (
        *("pizza", "hamburger", "hot dog", "sandwich", "taco"),
        *("doughnut", "cookie", "cake=birthday cake", "ice cream"),
    ),
    "plant": (
        *("rose", "tulip", "sunflower", "hibiscus"),
        *("cactus", "palm tree", "pine tree=evergreen tree", "mushroom"),
    ),
    "vehicle": (
        *("car=automobile", "taxi", "police car", "bus", "fire engine", "ambulance", "truck=delivery truck"),
        *("tractor", "motorcycle", "bicycle", "helicopter", "airplane", "rocket", "sailboat"),
    ),
    "instrument": ("guitar", "banjo", "violin", "trumpet", "saxophone", "drum", "accordion", "flute"),
    "character": (
        *("ghost", "vampire", "zombie", "skull", "robot", "alien", "astronaut", "clown=clown face", "goblin"),
        *("wizard=mage", "fairy", "princess", "detective", "ninja", "superhero", "snowman"),
    ),
    "tool": ("hammer", "axe", "wrench", "saw=carpentry saw", "scissors"),
    "weapon": ("dagger", "swords=crossed swords", "bomb", "bow=bow and arrow"),
    "ball": ("soccer ball", "basketball", "volleyball", "football=american football"),
    "building": ("house", "castle", "church", "factory"),
    "thing": ("umbrella", "cigarette", "candle", "balloon", "crown"),
}

# Names that stand without an article.
_BARE: Final = frozenset({"cherries", "grapes", "corn", "broccoli", "scissors", "swords"})
_PLURALS: Final = {
    "wolf": "wolves",
    "fox": "foxes",
    "mouse": "mice",
    "fish": "fish",
    "sandwich": "sandwiches",
    "hibiscus": "hibiscus",
    "cactus": "cacti",
    "bus": "buses",
    "princess": "princesses",
    "church": "churches",
    "octopus": "octopuses",
    "wrench": "wrenches",
    "broccoli": "broccoli",
    "corn": "corn",
}


@dataclass(frozen=True, slots=True)
class Thing:
    """One object: the name that captions use, its category, the label of its drawing, and labels that lend it words."""

    name: str
    category: str
    drawing: str
    labels: tuple[str, ...]

    @property
    def with_article(self) -> str:
        """'a dog', 'an apple', 'grapes'."""
        return self.name if self.name in _BARE else f"{article(self.name)} {self.name}"

    @property
    def plural(self) -> str:
        """'dogs', 'mice', 'cherries'."""
        if self.name in _PLURALS:
            return _PLURALS[self.name]
        if self.name in _BARE:
            return self.name
        if self.name[-1] == "y" and self.name[-2] not in "aeiou":
            return self.name[:-1] + "ies"
        return self.name + "s"


def article(noun: str) -> str:
    """The indefinite article of an English noun."""
    return "an" if noun[0] in "aeiou" and not noun.startswith("uni") else "a"


def parse_entry(entry: str, category: str) -> Thing:
    """One entry of the table: 'name', 'name=label' or 'name=label/label'."""
    name, _, labels = entry.partition("=")
    known = tuple(labels.split("/")) if labels else (name,)
    return Thing(name, category, known[0], known)


# The order is the label order of pictures and of the classifier.
THINGS: Final = tuple(parse_entry(entry, category) for category, row in _TABLE.items() for entry in row)
CATEGORIES: Final = tuple(_TABLE)


@dataclass(frozen=True, slots=True)
class Group:
    """A word for several objects, in four languages, with the names of its members."""

    words: dict[str, str]
    members: frozenset[str]


def _of(*categories: str, also: tuple[str, ...] = (), without: tuple[str, ...] = ()) -> frozenset[str]:
    inside = {thing.name for thing in THINGS if thing.category in categories}
    return frozenset((inside | set(also)) - set(without))


def _group(en: str, de: str, es: str, fr: str, members: frozenset[str]) -> Group:
    return Group({"en": en, "de": de, "es": es, "fr": fr}, members)


_ANIMALS: Final = ("mammal", "bird", "sea animal", "reptile", "insect")
# The first seventeen are the categories, in their order; then wider and narrower words.
GROUPS: Final[tuple[Group, ...]] = (
    _group("mammal", "säugetier", "mamífero", "mammifère", _of("mammal", also=("whale", "dolphin"))),
    _group("bird", "vogel", "ave", "oiseau", _of("bird")),
    _group("sea animal", "meerestier", "animal marino", "animal marin", _of("sea animal")),
    _group("reptile", "reptil", "reptil", "reptile", _of("reptile")),
    _group("insect", "insekt", "insecto", "insecte", _of("insect")),
    _group("fruit", "obst", "fruta", "fruit", _of("fruit")),
    _group("vegetable", "gemüse", "verdura", "légume", _of("vegetable")),
    _group("dish", "gericht", "plato", "plat", _of("dish")),
    _group("plant", "pflanze", "planta", "plante", _of("plant", without=("mushroom",))),
    _group("vehicle", "fahrzeug", "vehículo", "véhicule", _of("vehicle")),
    _group("instrument", "instrument", "instrumento", "instrument", _of("instrument")),
    _group("character", "figur", "personaje", "personnage", _of("character")),
    _group("tool", "werkzeug", "herramienta", "outil", _of("tool")),
    _group("weapon", "waffe", "arma", "arme", _of("weapon", also=("axe",))),
    _group("ball", "ball", "pelota", "ballon", _of("ball")),
    _group("building", "gebäude", "edificio", "bâtiment", _of("building")),
    _group("thing", "ding", "cosa", "chose", _of(*CATEGORIES)),
    _group("animal", "tier", "animal", "animal", _of(*_ANIMALS)),
    _group("pet", "haustier", "mascota", "animal domestique", frozenset({"dog", "cat", "rabbit", "hamster", "parrot"})),
    _group("wild animal", "wildtier", "animal salvaje", "animal sauvage",
           frozenset({"wolf", "fox", "raccoon", "tiger", "lion", "bear", "polar bear", "panda", "koala", "monkey"})),
    _group("farm animal", "nutztier", "animal de granja", "animal de ferme",
           frozenset({"pig", "cow", "horse", "rooster", "duck"})),
    _group("big cat", "raubkatze", "felino", "félin", frozenset({"tiger", "lion"})),
    _group("food", "essen", "comida", "nourriture", _of("fruit", "vegetable", "dish")),
    _group("dessert", "nachtisch", "postre", "dessert", frozenset({"doughnut", "cookie", "cake", "ice cream"})),
    _group("flower", "blume", "flor", "fleur", frozenset({"rose", "tulip", "sunflower", "hibiscus"})),
    _group("tree", "baum", "árbol", "arbre", frozenset({"palm tree", "pine tree"})),
    _group("aircraft", "luftfahrzeug", "aeronave", "aéronef", frozenset({"helicopter", "airplane", "rocket"})),
    _group("emergency vehicle", "einsatzfahrzeug", "vehículo de emergencia", "véhicule d'urgence",
           frozenset({"police car", "fire engine", "ambulance"})),
    _group("string instrument", "saiteninstrument", "instrumento de cuerda", "instrument à cordes",
           frozenset({"guitar", "banjo", "violin"})),
    _group("wind instrument", "blasinstrument", "instrumento de viento", "instrument à vent",
           frozenset({"trumpet", "saxophone", "flute"})),
    _group("monster", "monster", "monstruo", "monstre",
           frozenset({"ghost", "vampire", "zombie", "alien", "goblin"})),
    _group("hero", "held", "héroe", "héros", frozenset({"superhero", "ninja", "detective", "astronaut"})),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Style:
    """One style: its names by language, the invented artist who stands for it, and whether it may lie on any ground."""

    name: str
    artist: str
    words: dict[str, str]
    grounded: bool


def _style(artist: str, en: str, de: str, es: str, fr: str, *, grounded: bool = False) -> Style:
    return Style(en, artist, {"en": en, "de": de, "es": es, "fr": fr}, grounded)


# The artists are invented; the names were made so that they share no syllable with the styles.
STYLES: Final[tuple[Style, ...]] = (
    _style("tilda okarand", "cartoon", "comic", "caricatura", "bande dessinée", grounded=True),
    _style("bastor quillane", "ink", "tusche", "tinta", "encre", grounded=True),
    _style("mirka dovrell", "neon", "neonlicht", "neón", "néon"),
    _style("jorun vaskeld", "sketch", "skizze", "boceto", "croquis", grounded=True),
    _style("ruvo hasselin", "pixel", "pixelkunst", "píxel", "pixels", grounded=True),
    _style("nele pomarune", "watercolor", "aquarell", "acuarela", "aquarelle"),
    _style("odo fenwarth", "blueprint", "bauplan", "plano", "plan"),
    _style("sanna lumbrecq", "poster", "plakat", "cartel", "affiche"),
)

# Plain grounds that a drawing may lie on: "a dog on a red background". Each differs from every style's own ground.
GROUNDS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (214, 48, 49),
    "green": (46, 160, 67),
    "blue": (38, 84, 214),
    "yellow": (247, 208, 56),
    "purple": (134, 60, 176),
}

# Trained like the others but never named in a retain list: they show what an erasure does to what nobody protected.
HELD_OUT: Final = (
    *("raccoon", "parrot", "squid", "lizard", "beetle", "pear", "eggplant", "taco", "hibiscus", "helicopter"),
    *("banjo", "goblin", "superhero", "wrench", "volleyball", "castle", "candle"),
)
HELD_OUT_STYLE: Final = "poster"

LANGUAGES: Final = ("en", "de", "es", "fr")
