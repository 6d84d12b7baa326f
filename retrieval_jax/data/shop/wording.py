"""The words of the embedded catalogue: its attributes, and how sellers and shoppers name them."""

import numpy as np

# Category tree: (top, middle, leaf, words of a seller, optional part 1, optional part 2).
CATEGORIES = (
    ("fashion", "tops", "t-shirt", ("t-shirt", "tee", "tshirt"), "pocket", "v-neck"),
    ("fashion", "tops", "shirt", ("shirt", "blouse"), "pocket", "long-sleeve"),
    ("fashion", "tops", "hoodie", ("hoodie", "hooded sweater"), "zip", "pocket"),
    ("fashion", "bottoms", "trousers", ("trousers", "pants"), "belt", "cuffs"),
    ("fashion", "bottoms", "shorts", ("shorts", "bermuda"), "belt", "cuffs"),
    ("fashion", "bottoms", "skirt", ("skirt",), "belt", "frill"),
    ("fashion", "outerwear", "dress", ("dress", "gown"), "belt", "long-sleeve"),
    ("fashion", "outerwear", "coat", ("coat", "jacket"), "belt", "buttons"),
    ("fashion", "shoes", "sneaker", ("sneaker", "trainer"), "laces", "high-top"),
    ("fashion", "shoes", "boot", ("boot", "wellington"), "buckle", "zip"),
    ("fashion", "shoes", "heels", ("heels", "pumps"), "strap", "bow"),
    ("fashion", "bags", "handbag", ("handbag", "purse"), "buckle", "chain"),
    ("fashion", "bags", "backpack", ("backpack", "rucksack"), "pocket", "buckle"),
    ("fashion", "bags", "tote", ("tote", "shopper"), "pocket", "bow"),
    ("fashion", "accessories", "cap", ("cap", "snapback"), "band", "button"),
    ("fashion", "accessories", "hat", ("hat", "fedora"), "band", "feather"),
    ("fashion", "accessories", "sunglasses", ("sunglasses", "shades"), "round", "chain"),
    ("fashion", "accessories", "watch", ("watch", "wristwatch"), "round", "chronograph"),
    ("fashion", "accessories", "umbrella", ("umbrella", "parasol"), "frill", "hook"),
    ("home", "kitchen", "mug", ("mug", "cup"), "band", "spoon"),
    ("home", "kitchen", "teapot", ("teapot", "kettle"), "band", "chain"),
    ("home", "kitchen", "bottle", ("bottle", "flask"), "strap", "straw"),
    ("home", "kitchen", "pan", ("pan", "skillet"), "lid", "hook"),
    ("home", "lighting", "lamp", ("lamp", "light"), "frill", "chain"),
    ("home", "lighting", "pendant", ("pendant", "chandelier"), "frill", "round"),
    ("home", "furniture", "chair", ("chair", "seat"), "armrests", "cushioned"),
    ("home", "furniture", "sofa", ("sofa", "couch"), "cushioned", "buttons"),
    ("home", "furniture", "cabinet", ("cabinet", "dresser"), "doors", "round"),
    ("home", "decor", "vase", ("vase",), "flowers", "band"),
    ("home", "decor", "clock", ("clock",), "round", "bells"),
    ("leisure", "music", "guitar", ("guitar", "ukulele"), "strap", "cutaway"),
    ("leisure", "sport", "skateboard", ("skateboard", "longboard"), "band", "griptape"),
)
LEAVES = tuple(row[2] for row in CATEGORIES)
MIDDLES = tuple(dict.fromkeys(row[1] for row in CATEGORIES))
TOPS = tuple(dict.fromkeys(row[0] for row in CATEGORIES))

COLOURS = {  # the first word names the colour in the true attributes
    "black": ("black", "jet"),
    "white": ("white", "ivory"),
    "grey": ("grey", "gray", "silver"),
    "red": ("red", "crimson"),
    "orange": ("orange", "rust"),
    "yellow": ("yellow", "mustard"),
    "green": ("green", "olive"),
    "teal": ("teal", "turquoise"),
    "blue": ("blue", "navy"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rose"),
    "brown": ("brown", "chocolate"),
}
PATTERNS = {
    "plain": ("plain", "solid"),
    "striped": ("striped", "stripes"),
    "checked": ("checked", "plaid"),
    "dotted": ("dotted", "polka dot"),
    "zigzag": ("zigzag", "chevron"),
    "floral": ("floral", "flowery"),
    "camouflage": ("camouflage", "camo"),
    "ombre": ("ombre", "gradient"),
}
MATERIALS = {
    "cotton": ("cotton", "canvas"),
    "denim": ("denim", "jeans"),
    "wool": ("wool", "knitted"),
    "leather": ("leather", "cowhide"),
    "metal": ("metal", "steel"),
    "wood": ("wood", "wooden"),
    "ceramic": ("ceramic", "porcelain"),
}
MATERIALS_OF = {  # by middle category
    "tops": ("cotton", "denim", "wool"),
    "bottoms": ("cotton", "denim", "wool", "leather"),
    "outerwear": ("cotton", "denim", "wool", "leather"),
    "shoes": ("cotton", "denim", "leather"),
    "bags": ("cotton", "denim", "wool", "leather"),
    "accessories": ("cotton", "leather", "metal"),
    "kitchen": ("metal", "ceramic", "wood"),
    "lighting": ("metal", "ceramic", "cotton"),
    "furniture": ("wood", "leather", "metal", "cotton"),
    "decor": ("wood", "ceramic", "metal"),
    "music": ("wood", "metal"),
    "sport": ("wood", "metal"),
}
# Invented brands: (name, glyph printed on every product of the brand, style of its house).
BRANDS = (
    ("norvik", "star", "sporty"),
    ("lumora", "ring", "elegant"),
    ("tazuki", "triangle", "sporty"),
    ("brelle", "heart", "casual"),
    ("quillon", "cross", "casual"),
    ("pasanda", "diamond", "elegant"),
    ("veltri", "bolt", "sporty"),
    ("hobnell", "square", "casual"),
    ("zanira", "crescent", "elegant"),
    ("mirrow", "bars", "sporty"),
    ("caldoza", "drop", "casual"),
    ("fennox", "arrow", "sporty"),
    ("orvelle", "hexagon", "elegant"),
    ("jupelle", "clover", "elegant"),
    ("wexby", "hourglass", "casual"),
    ("draymond", "target", "casual"),
)
STYLES = ("casual", "elegant", "sporty")

NOISE = (
    "new",
    "sale",
    "free shipping",
    "gift",
    "vintage",
    "rare",
    "genuine",
    "bnwt",
    "top quality",
    "2019",
    "2021",
    "size m",
    "size l",
    "uk 10",
    "fast post",
    "100%",
    "lot",
    "boxed",
    "unisex",
    "authentic",
    "look!",
    "must see",
)
# How often a title contains the true attribute.
NAMED = {"category": 0.95, "colour": 0.85, "pattern": 0.75, "material": 0.6, "brand": 0.8, "part": 0.6, "second": 0.15}
MISLEADING = 0.06  # share of titles with a word that is not true of the product
TYPO = 0.07  # share of titles with a misspelt word


def _pick(rng: np.random.Generator, options):
    return options[int(rng.random() * len(options))]


def _misspell(word: str, rng: np.random.Generator) -> str:
    if len(word) < 4:
        return word
    at = 1 + int(rng.random() * (len(word) - 2))
    kind = int(rng.random() * 3)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at] + word[at:]
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def title(product: dict[str, int], rng: np.random.Generator) -> str:
    """Writes a seller's title: most true attributes by one of their names, in a noisy order, with noise and mistakes.

    Args:
      product: attribute name -> index, as of `synthetic.attributes` for one product.
      rng: the listing's own random numbers.

    Returns:
      The title, for example "Norvik red tee striped cotton free shipping".
    """
    row = CATEGORIES[product["category"]]
    colours, patterns, materials = list(COLOURS.values()), list(PATTERNS.values()), list(MATERIALS.values())
    words = []
    if rng.random() < NAMED["category"]:
        words.append(_pick(rng, row[3]))
    if rng.random() < NAMED["colour"]:
        words.append(_pick(rng, colours[product["colour"]]))
    if rng.random() < (NAMED["pattern"] if product["pattern"] else 0.2):
        words.append(_pick(rng, patterns[product["pattern"]]))
    if rng.random() < NAMED["material"]:
        words.append(_pick(rng, materials[product["material"]]))
    if rng.random() < NAMED["brand"]:
        words.append(BRANDS[product["brand"]][0])
    if product["pattern"] and rng.random() < NAMED["second"]:
        words.append("and " + _pick(rng, colours[product["second"]]))
    for part, name in ((product["part1"], row[4]), (product["part2"], row[5])):
        if part and rng.random() < NAMED["part"]:
            words.append("with " + name if rng.random() < 0.5 else name)
    if rng.random() < 0.15:
        words.append(STYLES[product["style"]])
    if rng.random() < MISLEADING:
        words.append(_pick(rng, _pick(rng, colours + materials + [(brand[0],) for brand in BRANDS])))
    for _ in range(int(rng.random() * 3)):
        words.append(_pick(rng, NOISE))
    if not words:
        words.append(row[2])
    # Sellers put brand, colour and category first more often than not: a noisy order, not a uniform one.
    order = sorted(range(len(words)), key=lambda i: i + 6 * rng.random())
    words = [words[i] for i in order]
    if rng.random() < TYPO:
        at = int(rng.random() * len(words))
        words[at] = _misspell(words[at], rng)
    text = " ".join(words)
    case = rng.random()
    return text.title() if case < 0.4 else text.upper() if case < 0.5 else text


def query_text(product: dict[str, int], names: tuple[str, ...], rng: np.random.Generator) -> str:
    """Writes a shopper's query for products that share the named attributes with this one."""
    options = {
        "category": [row[3] for row in CATEGORIES],
        "colour": list(COLOURS.values()),
        "pattern": list(PATTERNS.values()),
        "material": list(MATERIALS.values()),
        "brand": [(brand[0],) for brand in BRANDS],
    }
    return " ".join(_pick(rng, options[name][product[name]]) for name in names)


def misspelt(text: str, rng: np.random.Generator) -> str:
    """Returns a query with a typo in one of its words of four letters or more, where it has one."""
    words = text.split(" ")
    long = [at for at, word in enumerate(words) if len(word) >= 4]
    if long:
        at = _pick(rng, long)
        typed = words[at]
        while typed == words[at]:  # two equal letters that change places
            typed = _misspell(words[at], rng)
        words[at] = typed
    return " ".join(words)


PATTERN_NOUNS = {
    "plain": "plain colour",
    "striped": "stripes",
    "checked": "checks",
    "dotted": "dots",
    "zigzag": "zigzags",
    "floral": "flowers",
    "camouflage": "camouflage",
    "ombre": "gradient",
}

# How shoppers word an edit: {new} and {old} are names of the value, {news} and {olds} nouns for a pattern, {part} has
# its article. They follow how people describe the difference of two garments (the captions of Fashion IQ, CVPR 2021),
# in words of our own.
ASKED = {
    "colour": (
        "the same but in {new}",
        "in {new}",
        "the {new} one",
        "{new} instead of {old}",
        "do you have it in {new}",
        "same in {new}, not {old}",
        "is {new}",
        "is {new} in colour",
        "has more {new}",
        "make it {new}",
        "the {new} version of this",
        "is {new} coloured rather than {old}",
        "change the colour to {new}",
    ),
    "pattern": (
        "the same but with {news}",
        "with {news}",
        "{new} instead of {old}",
        "{new}, not {old}",
        "same, {new}",
        "has {news}",
        "is {new}",
        "{news} in place of {olds}",
        "i would like {news}",
        "has {news} rather than {olds}",
        "change the pattern to {new}",
    ),
    "material": (
        "the same but in {new}",
        "made of {new}",
        "{new} instead of {old}",
        "in {new}, not {old}",
        "is made from {new}",
        "is {new}",
        "do you have it in {new}",
        "the {new} version of this",
        "change the material to {new}",
        "i prefer {new} over {old}",
    ),
    "part": (
        "the same but with {part}",
        "with {part}",
        "has {part}",
        "the one that has {part}",
        "comes with {part}",
        "add {part}",
        "is alike and has {part}",
        "i need {part} on it",
    ),
    "no colour": (
        "not in {old}",
        "the same but not {old}",
        "any colour but {old}",
        "is not {old}",
        "no {old} please",
        "anything other than {old}",
        "does not come in {old}",
        "isn't {old}",
    ),
    "no pattern": (
        "without {olds}",
        "the same but no {olds}",
        "not {old}",
        "has no {olds}",
        "does not have {olds}",
        "isn't {old}",
        "leave out the {olds}",
        "free of {olds}",
    ),
    "no material": (
        "not {old}",
        "the same but not in {old}",
        "anything but {old}",
        "is not made of {old}",
        "no {old}",
        "in something other than {old}",
        "doesn't use {old}",
        "avoid {old}",
    ),
    "no part": (
        "the same without {part}",
        "without {part}",
        "no {old}",
        "has no {old}",
        "does not have {part}",
        "lose the {old}",
        "leave off the {old}",
        "never with {part}",
    ),
}
PART_NOUNS = {  # those that take no plain "a": (with its article, alone)
    "armrests": ("armrests", "armrests"),
    "bells": ("bells", "bells"),
    "buttons": ("buttons", "buttons"),
    "cuffs": ("cuffs", "cuffs"),
    "cushioned": ("cushions", "cushions"),
    "doors": ("doors", "doors"),
    "flowers": ("flowers", "flowers"),
    "griptape": ("griptape", "griptape"),
    "high-top": ("a high top", "high top"),
    "laces": ("laces", "laces"),
    "long-sleeve": ("long sleeves", "long sleeves"),
    "round": ("a round shape", "round shape"),
}


def phrased(template: str, field: str, old: str, new: str, rng: np.random.Generator) -> str:
    """Writes an edit in one of the wordings of ASKED.

    Args:
      template: the wording.
      field: what is edited: "colour", "pattern", "material" or "part".
      old: true name of the value in view, or "" for a part that is missing.
      new: true name of the value that is wanted; "" where the old one is only excluded.
      rng: the edit's own random numbers.

    Returns:
      The words, for example "has no stripes".
    """
    if field == "part":
        article, alone = PART_NOUNS.get(old or new, ("a " + (old or new), old or new))
        return template.format(part=article, old=alone)
    words = {"colour": COLOURS, "pattern": PATTERNS, "material": MATERIALS}[field]
    values = {"old": _pick(rng, words[old])} | ({"new": _pick(rng, words[new])} if new else {})
    if field == "pattern":
        values |= {"olds": PATTERN_NOUNS[old], "news": PATTERN_NOUNS.get(new, "")}
    return template.format(**values)
