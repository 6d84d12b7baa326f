"""Whether two titles are of one product: equal but for words of size and colour, or one the beginning of the other."""

from __future__ import annotations

import functools
import re
import unicodedata

# Sizes and colours in the languages of shops, and what links them to a title.
_VARIANT = frozenset(
    """xxs xs s m l xl xxl xxxl xxxxl 2xl 3xl 4xl 5xl one size onesize os small medium large mini klein mittel gross groß petit moyen grand
    pequeño mediano grande маленький средний большой mały średni duży cm mm inch inches eu uk us de fr it size größe taille talla taglia maat rozmiar размер розмір beden
    color colour farbe couleur colore cor kleur kolor цвет колір renk barva velikost new neu nouveau новинка sale pcs pack set
    black white red blue green yellow orange pink purple violet brown grey gray beige navy ivory silver gold golden cream turquoise khaki olive burgundy teal lilac
    schwarz weiß weiss rot blau grün gruen gelb rosa lila braun grau beige silber gold türkis bordeaux
    noir noire blanc blanche rouge bleu bleue vert verte jaune rose violette marron gris grise argent doré
    negro negra blanco blanca rojo roja azul verde amarillo amarilla morado marrón plata dorado nero nera bianco bianca rosso rossa blu giallo gialla viola grigio argento oro
    preto preta branco branca vermelho vermelha amarelo roxo cinza prata zwart wit rood blauw groen geel paars bruin grijs zilver
    czarny czarna biały biała czerwony niebieski zielony żółty różowy fioletowy brązowy szary
    черный чёрный черная чёрная белый белая красный красная синий синяя зеленый зелёный желтый жёлтый розовый коричневый серый чорний білий червоний синій зелений
    siyah beyaz kırmızı mavi yeşil sarı pembe mor kahverengi gri černá černý bílá bílý červená modrá zelená žlutá růžová
    黑色 白色 红色 蓝色 绿色 黄色 粉色 灰色 紫色 ブラック ホワイト レッド ブルー 黒 白 赤 青 緑 검정 블랙 화이트 빨강 레드 블루 أسود أبيض أحمر أزرق أخضر काला सफेद लाल नीला हरा""".split()
)
_AGREE = 0.75  # share of the longer title's words


@functools.lru_cache(200_000)
def words(title: str) -> tuple[str, ...]:
    """Returns the words of a title that tell products apart: in lower case, without sizes and colours."""
    text = unicodedata.normalize("NFKC", title).casefold()
    found = re.findall(r"[^\W_]+", text)
    kept = tuple(
        word for word in found if word not in _VARIANT and not re.fullmatch(r"\d+(?:cm|mm|g|kg|ml|l)?|[a-z]", word)
    )
    return kept or tuple(found)


@functools.lru_cache(200_000)
def plain(title: str) -> str:
    """Returns a title in lower case with single blanks and without what is not a letter or digit."""
    return " ".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", title).casefold()))


def agree(one: str, other: str) -> bool:
    """Returns whether two titles are those of one product, perhaps of different variants.

    Args:
      one, other: the titles; an empty one agrees with any.
    """
    first, second = plain(one), plain(other)
    if first == second or not first or not second:
        return True
    short, long = sorted((first, second), key=len)
    if long.startswith(short + " ") and len(short) >= 4 and (" " in short or len(long) <= 2 * len(short)):
        return True
    left, right = set(words(one)), set(words(other))
    return len(left & right) >= _AGREE * max(len(left), len(right))
