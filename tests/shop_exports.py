"""Writes the same products as different shop systems and people export them, for the tests of data/exports and init.

Every function of `KINDS` takes the products and returns an `Export`. Each must give all products, and every picture
once.

Longer than 400 lines: a list of forms, to be read from the top or searched.
"""

import csv
import dataclasses
import io
import json
import pathlib
import unicodedata

import numpy as np
from PIL import Image


@dataclasses.dataclass(frozen=True)
class Product:
    """A product: its number, name, category path, and how many pictures and variants it has."""

    number: int
    title: str
    category: tuple[str, ...]
    pictures: int
    variants: int
    slug: str


@dataclasses.dataclass(frozen=True)
class Export:
    """A table and its pictures.

    Attributes:
      name: of the table's file.
      content: its bytes.
      pictures: {path below the folder of the pictures: number of product and picture}.
      rows: of the table that are products, variants or pictures.
      aside: rows that are none of these.
    """

    name: str
    content: bytes
    pictures: dict[str, tuple[int, int]]
    rows: int
    aside: int = 0


_KINDS = ("Handbag", "Hat", "Watch", "Boot", "Dress", "Scarf")

_WORDS = ("Velvet", "Canvas", "Striped", "Plain", "Vintage", "Orvelle", "Zanira", "Wexby", "Camo", "Denim", "Caldoza")


def products(count: int = 14) -> list[Product]:
    """Returns products with one to three pictures and variants; most have several pictures."""
    out = []
    for number in range(count):
        kind = _KINDS[number % len(_KINDS)]
        words = [_WORDS[(number * step + number // 6) % len(_WORDS)] for step in (1, 3)]
        title = f"{kind} {' '.join(dict.fromkeys(words))} No. {chr(65 + number)}{number}x"
        out.append(
            Product(
                number,
                title,
                ("Fashion", "Bags" if number % 2 else "Clothes", kind),
                1 + (number + 1) % 3,
                1 + number % 3,
                title.lower().replace(" ", "-").replace(".", ""),
            )
        )
    return out


def write(
    export: Export, folder: pathlib.Path, images: str = "pictures", side: int = 24
) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes an export; returns the paths of the table and of the folder of the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / export.name).write_bytes(export.content)
    for path, (product, picture) in export.pictures.items():
        file = folder / images / path
        file.parent.mkdir(parents=True, exist_ok=True)
        draw(product, picture, side).save(file, format="JPEG" if file.suffix.lower() in (".jpg", ".jpeg") else None)
    (folder / images).mkdir(exist_ok=True)
    return folder / export.name, folder / images


def draw(product: int, picture: int, side: int) -> Image.Image:
    """Draws a picture: the product decides the colours, the picture where the light comes from."""
    rng = np.random.default_rng(product)
    base = rng.integers(40, 216, (4, 4, 3))
    light = np.linspace(-30, 30, side)[:, None, None] * (1, -1, 0.3)[picture % 3]
    noise = np.random.default_rng((product, picture)).integers(-8, 9, (side, side, 3))
    cells = np.kron(base, np.ones((side // 4, side // 4, 1)))
    return Image.fromarray(np.clip(cells + light + noise, 0, 255).astype(np.uint8))


def text(rows: list[list], delimiter: str = ",", end: str = "\r\n") -> str:
    """Returns rows as delimited text."""
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, lineterminator=end).writerows(rows)
    return out.getvalue()


def file_names(product: Product, pattern: str = "{slug}-{n}.jpg") -> list[str]:
    return [pattern.format(slug=product.slug, n=n + 1, id=product.number) for n in range(product.pictures)]


def files_of(found: list[Product], pattern: str = "{slug}-{n}.jpg", below: str = "") -> dict[str, tuple[int, int]]:
    return {below + name: (p.number, n) for p in found for n, name in enumerate(file_names(p, pattern))}


SIZES = ("S", "M", "L")

# A row of an export is one line, so that its columns can be compared with the header's.
# fmt: off
# ruff: noqa: E501


def shopify(found):
    """One row per variant or picture; the title only in the first; addresses with a version; barcodes after a quote."""
    rows = [['Handle', 'Title', 'Body (HTML)', 'Vendor', 'Type', 'Tags', 'Published', 'Option1 Name', 'Option1 Value', 'Variant SKU', 'Variant Barcode', 'Variant Price', 'Image Src', 'Image Position', 'Image Alt Text', 'Variant Image', 'Status']]
    for p in found:
        names = file_names(p)
        for n in range(max(p.pictures, p.variants)):
            image = f'https://cdn.example.com/s/files/1/{names[n]}?v=16{p.number:04}' if n < p.pictures else ''
            first = n == 0
            rows.append([p.slug, p.title if first else '', '<p>Fine &amp; <b>new</b>,\nsoft</p>' if first else '', 'Vendor' if first else '', p.category[-1] if first else '', 'a, b' if first else '', 'TRUE' if first else '', 'Size' if first else '', SIZES[n] if n < p.variants else '', f'SKU{p.number}-{n}' if n < p.variants else '', f"'40063810{p.number:04}{n}" if n < p.variants else '', '9.95' if n < p.variants else '', image, n + 1 if image else '', p.title if image else '', f'https://cdn.example.com/s/files/1/{names[0]}?v=17' if n < p.variants else '', 'active' if first else ''])
    return Export('products_export_1.csv', text(rows, end='\n').encode(), files_of(found), len(rows) - 1)


def woocommerce(found):
    """All pictures in one field; variations as rows that name their parent by "id:" or SKU; a byte-order mark."""
    rows = [['ID', 'Type', 'SKU', 'Name', 'Published', 'Is featured?', 'Visibility in catalog', 'Short description', 'Description', 'Regular price', 'Categories', 'Tags', 'Images', 'Parent', 'Position', 'Attribute 1 name', 'Attribute 1 value(s)']]
    for p in found:
        url = [f'https://shop.example.com/wp-content/uploads/2024/05/{name}' for name in file_names(p)]
        category = ' > '.join(p.category)
        kind = 'variable' if p.variants > 1 else 'simple'
        rows.append([100 + p.number, kind, '' if p.number % 4 == 3 else f'WC-{p.number}', p.title, 1, 0, 'visible', '', '<p>Long, text</p>', '9.95', f'{category}, Sale' if p.number % 3 else category, 'x', ', '.join(url), '', p.number, 'Size', ', '.join(SIZES[:p.variants])])
        for n in range(p.variants if p.variants > 1 else 0):
            parent = f'id:{100 + p.number}' if p.number % 4 == 3 or p.number % 2 else f'WC-{p.number}'
            rows.append([5000 + 10 * p.number + n, 'variation', f'WC-{p.number}-{SIZES[n]}', f'{p.title} - {SIZES[n]}', 1, 0, 'visible', '', '', '9.95', '', '', url[-1], parent, n, 'Size', SIZES[n]])
    return Export('wc-product-export-1.csv', b'\xef\xbb\xbf' + text(rows, end='\n').encode(), files_of(found, below='2024/05/'), len(rows) - 1)


def magento(found):
    """Configurable products with simple ones as rows of their own, a second store view, nested categories, paths."""
    rows = [['sku', 'store_view_code', 'attribute_set_code', 'product_type', 'categories', 'product_websites', 'name', 'description', 'price', 'visibility', 'url_key', 'base_image', 'base_image_label', 'small_image', 'thumbnail_image', 'swatch_image', 'additional_images', 'configurable_variations']]

    def path(name):
        return f'/{name[0]}/{name[1]}/{name}'
    files = {}
    for p in found:
        names = [path(name) for name in file_names(p)]
        files |= {f'catalog/product{name}': (p.number, n) for n, name in enumerate(names)}
        nested = ','.join('/'.join(['Default Category', *p.category[:n + 1]]) for n in range(len(p.category)))
        children = [f'MH{p.number:02}-{size}' for size in SIZES[:p.variants]] if p.variants > 1 else []
        for child, size in zip(children, SIZES, strict=False):
            rows.append([child, '', 'Top', 'simple', nested, 'base', f'{p.title}-{size}', '', '9.95', 'Not Visible Individually', f'{p.slug}-{size.lower()}', names[0], '', names[0], names[0], '', names[0], ''])
        variations = '|'.join((f'sku={child},size={size}' for child, size in zip(children, SIZES, strict=False)))
        rows.append([f'MH{p.number:02}', '', 'Top', 'configurable' if children else 'simple', nested, 'base', p.title, '<p>a</p>', '9.95', 'Catalog, Search', p.slug, names[0], '', names[0], names[0], 'no_selection', ','.join(names[1:]), variations])
        if p.number % 3 == 0:
            rows.append([f'MH{p.number:02}', 'de', 'Top', 'configurable' if children else 'simple', '', '', f'Ganz anderer Name {p.number}', '', '', '', '', '', '', '', '', '', '', ''])
    return Export('catalog_product.csv', text(rows, end='\n').encode(), files, len(rows) - 1)


def merchant(found):
    """A feed with tabs: additional pictures in one field, rounded GTINs, item groups that join different products."""
    rows = [['id', 'title', 'description', 'link', 'image_link', 'additional_image_link', 'availability', 'price', 'google_product_category', 'product_type', 'brand', 'gtin', 'item_group_id', 'color']]
    for p in found:
        url = [f'https://img.example.com/{name}' for name in file_names(p)]
        gtin = '4.00638E+12' if p.number % 3 == 0 else f'40063810{p.number:05}'
        rows.append([f'{p.number:06}', p.title, f'5" wide, "{p.title}', f'https://shop.example.com/p/{p.number}', url[0], ','.join(url[1:]), 'in stock', '9.95 EUR', '188', ' > '.join(p.category), 'Brand', gtin, f'GRP{p.number // 2}', 'red'])
    content = '\n'.join('\t'.join(map(str, row)) for row in rows)
    return Export('feed.tsv', content.encode(), files_of(found), len(rows) - 1)


def merchant_sizes(found):
    """A feed with one row per size: groups that are products, each size with the same pictures."""
    rows = [['id', 'title', 'image_link', 'additional_image_link', 'price', 'product_type', 'item_group_id', 'size']]
    for p in found:
        url = [f'https://img.example.com/{name}' for name in file_names(p)]
        for size in SIZES[:p.variants]:
            rows.append([f'{p.number}{size}', f'{p.title} {size}', url[0], ','.join(url[1:]), '9.95 EUR', ' > '.join(p.category), f'G{p.number}', size])
    return Export('feed.txt', text(rows, '\t', '\n').encode(), files_of(found), len(rows) - 1)


def torgovlya(found):
    """A Russian spreadsheet: cp1251, semicolons, decimal commas, backslashes, extensions in capitals."""
    rows, files = ([['Код', 'Наименование', 'Цена', 'Категория', 'Фото', 'Артикул']], {})
    for p in found:
        for n in range(p.pictures):
            path = f'foto\\{p.number:03}_{n}.JPG' if p.number % 2 else f'foto/{p.number:03}_{n}.jpg'
            rows.append([f'{p.number:03}_{n}', f'{p.title}  (новинка)', '65,95', p.category[-1], path, f'А-{p.number:03}'])
            files[f'{p.number:03}_{n}.jpg'] = (p.number, n)
    return Export('tovary.csv', text(rows, ';').encode('cp1251'), files, len(rows) - 1)


def prestashop(found):
    """Categories as numbers beside their names, pictures in one field between commas, quoted semicolons."""
    rows = [['Product ID', 'Active (0/1)', 'Name *', 'Categories (x,y,z...)', 'Price tax excluded', 'Reference #', 'Supplier', 'Image URLs (x,y,z...)', 'Image alt texts (x,y,z...)', 'Delete existing images (0 = No, 1 = Yes)', 'Description']]
    for p in found:
        url = [f'http://www.example.com/img/p/{p.number}/{name}' for name in file_names(p)]
        rows.append([p.number + 1, 1, p.title, ','.join(p.category), '9.950000', f'demo_{p.number}', 'Fashion Supplier', ','.join(url), ','.join([p.title] * p.pictures), 0, '<p>One; two</p>'])
    return Export('products.csv', text(rows, ';', '\n').encode(), files_of(found), len(rows) - 1)


def chinese(found):
    """A Chinese spreadsheet: GB 18030, title lines above the header, a total below, pictures between vertical bars."""
    rows = [['某某商城 商品导出表'] + [''] * 5, ['导出时间：2026年11月1日'] + [''] * 5, [''] * 6, ['商品编号', '商品名称', '类目', '价格', '图片', '备注']]
    for p in found:
        rows.append([f'H{p.number:04}', f'{p.title} 女士新款', '/'.join(('服装', p.category[-1])), '99.00', '|'.join(file_names(p)), ''])
    rows += [['合计', '', '', '1386.00', '', '']]
    return Export('商品.csv', text(rows).encode('gb18030'), files_of(found), len(found), 1)


def german(found):
    """A German spreadsheet: Excel's "sep=;", title lines, cp1252, empty and repeated header lines, one row per picture."""
    header = ['Artikelnummer', 'Bezeichnung', 'Größe', 'Warengruppe', 'VK-Preis', 'Bild', 'Bild']
    rows = [['Artikelliste Herbst', '', '', '', '', '', ''], ['', '', '', '', '', '', ''], header]
    aside = 0
    for p in found:
        names = file_names(p)
        for n in range(0, p.pictures, 2):
            rows.append([f'{p.number + 1:05}', f'{p.title} für Mädchen', '38', p.category[-1], '19,95 €', names[n], names[n + 1] if n + 1 < p.pictures else ''])
        if p.number == 6:
            rows += [[''] * 7, header]
            aside += 1
    rows += [['', '', '', '', '', '', ''], ['Summe', '', '', '', '279,30 €', '', '']]
    count = sum(-(-p.pictures // 2) for p in found)
    return Export('artikel.csv', b'sep=;\r\n' + text(rows, ';').encode('cp1252'), files_of(found), count, aside + 1)


def amazon(found):
    """A flat file: a line of versions, a line of labels, field names; parents and children; tabs."""
    header = ['feed_product_type', 'item_sku', 'brand_name', 'item_name', 'standard_price', 'quantity', 'main_image_url', 'other_image_url1', 'other_image_url2', 'parent_child', 'parent_sku', 'relationship_type', 'variation_theme', 'size_name']
    rows = [['TemplateType=fptcustom', 'Version=2024.0501', 'The top 3 rows are for Amazon.com use only.'] + [''] * 11, ['Product Type', 'Seller SKU', 'Brand', 'Product Name', 'Standard Price', 'Quantity', 'Main Image URL', 'Other Image URL1', 'Other Image URL2', 'Parentage', 'Parent SKU', 'Relationship Type', 'Variation Theme', 'Size'], header]
    for p in found:
        url = [f'https://m.media-amazon.com/images/I/{name}' for name in file_names(p)] + ['', '']
        rows.append(['bag', f'AMZ{p.number}', 'B', p.title, '', '', *url[:3], 'Parent', '', '', 'Size', ''])
        for size in SIZES[:p.variants]:
            rows.append(['bag', f'AMZ{p.number}-{size}', 'B', f'{p.title}, {size}', '9.95', '3', *url[:3], 'Child', f'AMZ{p.number}', 'Variation', 'Size', size])
    return Export('flat.file.txt', text(rows, '\t').encode('utf-8'), files_of(found), len(rows) - 3)


def bitrix(found):
    """A CMS that writes a row per value of a property: the same product again for each further picture."""
    rows, files = ([['IE_XML_ID', 'IE_NAME', 'IE_PREVIEW_PICTURE', 'IE_DETAIL_PICTURE', 'IE_DETAIL_TEXT', 'IP_PROP45', 'IC_GROUP0', 'IC_GROUP1', 'CV_PRICE_1']], {})
    for p in found:
        names = [f'/upload/iblock/{p.number:03x}/{name}' for name in file_names(p)]
        files |= {name[1:]: (p.number, n) for n, name in enumerate(names)}
        for more in names[1:] or ['']:
            rows.append([900 + p.number, p.title, names[0].replace('.jpg', '_s.jpg'), names[0], '<b>x</b>', more, p.category[1], p.category[2], '9.95'])
    return Export('export_file.csv', text(rows, ';').encode('utf-8'), files, len(rows) - 1)


def squarespace(found):
    """Variants as rows without id and title; pictures between blanks."""
    rows = [['Product ID [Non Editable]', 'Variant ID [Non Editable]', 'Product Type [Non Editable]', 'Product Page', 'Product URL', 'Title', 'Description', 'SKU', 'Option Name 1', 'Option Value 1', 'Price', 'Sale Price', 'On Sale', 'Stock', 'Categories', 'Tags', 'Weight', 'Visible', 'Hosted Image URLs']]
    for p in found:
        url = [f'https://images.squarespace-cdn.com/content/v1/5f/{p.number}/{name}' for name in file_names(p)]
        for n in range(p.variants):
            first = n == 0
            rows.append([f'5f9b{p.number:020x}' if first else '', f'v{p.number}-{n}', 'PHYSICAL' if first else '', 'store' if first else '', p.slug if first else '', p.title if first else '', '<p>x</p>' if first else '', f'SQ{p.number}{n}', 'Size', SIZES[n], '9.95', '0', 'No', '3', '/' + '/'.join(p.category).lower() if first else '', '', '0', 'Yes', ' '.join(url) if first else ''])
    return Export('products_Nov.csv', text(rows, end='\n').encode(), files_of(found), len(rows) - 1)


def wix(found):
    """Pictures by the system's own names between semicolons; variants repeat the handle."""
    rows = [['handleId', 'fieldType', 'name', 'description', 'productImageUrl', 'collection', 'sku', 'ribbon', 'price', 'visible', 'inventory', 'productOptionName1', 'productOptionDescription1']]
    files = {}
    for p in found:
        names = [f'ab12{p.number:02}_{n}f~mv2.jpg' for n in range(p.pictures)]
        files |= {name: (p.number, n) for n, name in enumerate(names)}
        rows.append([f'product_{p.number}', 'Product', p.title, 'x', ';'.join(names), ';'.join(p.category[1:]), f'W{p.number}', '', '9.95', 'true', 'InStock', 'Size', ';'.join(SIZES[:p.variants])])
        for size in SIZES[:p.variants] if p.variants > 1 else ():
            rows.append([f'product_{p.number}', 'Variant', '', '', '', '', f'W{p.number}{size}', '', '9.95', '', '3', '', size])
    return Export('catalog_products.csv', text(rows, end='\n').encode('utf-8-sig'), files, len(rows) - 1)


def bigcommerce(found):
    """A row per product, variant and picture, told apart by a column."""
    rows = [['Item', 'ID', 'Name', 'Type', 'SKU', 'Options', 'Inventory Tracking', 'Current Stock', 'Price', 'Brand ID', 'Categories', 'Description', 'Image URL (Import)', 'Image Description', 'Image is Thumbnail', 'Image Sort Order']]
    for p in found:
        rows.append(['Product', 70 + p.number, p.title, 'physical', f'BC-{p.number}', '', 'none', '0', '9.95', '3', p.category[2], 'x', '', '', '', ''])
        for n in range(p.variants):
            rows.append(['Variant', 700 + 10 * p.number + n, '', '', f'BC-{p.number}-{SIZES[n]}', f'Size={SIZES[n]}', '', '3', '9.95', '', '', '', '', '', '', ''])
        for n, name in enumerate(file_names(p)):
            rows.append(['Image', 9000 + 10 * p.number + n, '', '', '', '', '', '', '', '', '', '', f'https://cdn11.bigcommerce.com/s-x/products/{name}?c=1', '', 'TRUE' if not n else 'FALSE', n])
    return Export('products-2026-11.csv', text(rows, end='\n').encode(), files_of(found), len(rows) - 1)


def etsy(found):
    """No key but the title; a column per picture."""
    rows = [['TITLE', 'DESCRIPTION', 'PRICE', 'CURRENCY_CODE', 'QUANTITY', 'TAGS', 'MATERIALS', *(f'IMAGE{n}' for n in range(1, 11)), 'VARIATION 1 TYPE', 'VARIATION 1 NAME', 'VARIATION 1 VALUES', 'SKU']]
    for p in found:
        url = [f'https://i.etsystatic.com/1/r/il/{name}' for name in file_names(p)]
        rows.append([p.title, 'Long text, with commas.\nAnd lines', '9.95', 'EUR', '3', 'a,b', 'silk', *url, *[''] * (10 - len(url)), '', '', '', ''])
    return Export('EtsyListingsDownload.csv', text(rows, end='\n').encode(), files_of(found), len(rows) - 1)


def shopware(found):
    """Hexadecimal ids, parents by id, media between vertical bars, variants without a name."""
    rows = [['id', 'parent_id', 'product_number', 'active', 'stock', 'name', 'description', 'price_net', 'media', 'categories', 'options']]
    for p in found:
        own = f'{p.number:032x}'
        url = [f'https://sw.example.com/media/ab/cd/{name}' for name in file_names(p)]
        rows.append([own, '', f'SW{p.number:05}', '1', '3', p.title, 'x', '9.95', '|'.join(url), 'f00d' * 8, ''])
        for n in range(p.variants if p.variants > 1 else 0):
            rows.append([f'{p.number * 100 + n + 10 ** 6:032x}', own, f'SW{p.number:05}.{n + 1}', '1', '3', '', '', '9.95', '', '', 'f00d' * 8])
    return Export('export.csv', text(rows, ';', '\n').encode(), files_of(found), len(rows) - 1)


def opencart(found):
    """Names per language, paths below a data folder, further pictures in a field of their own."""
    rows, files = ([['product_id', 'name(en-gb)', 'name(de-de)', 'categories', 'sku', 'upc', 'quantity', 'model', 'manufacturer', 'image_name', 'additional_images', 'price', 'description(en-gb)']], {})
    for p in found:
        names = [f'catalog/demo/{name}' for name in file_names(p)]
        files |= {name: (p.number, n) for n, name in enumerate(names)}
        rows.append([30 + p.number, p.title, f'Deutsch {p.title}', '20,27', '', '', '3', f'Model {p.number}', 'Apple', names[0], ','.join(names[1:]), '9.95', '&lt;p&gt;x&lt;/p&gt;'])
    return Export('opencart.csv', text(rows).encode(), files, len(rows) - 1)


def ebay(found):
    """Variations below their listing, without a title; pictures between vertical bars."""
    rows = [['*Action(SiteID=US)', 'CustomLabel', '*Category', '*Title', 'Relationship', 'RelationshipDetails', '*Quantity', '*StartPrice', 'PicURL', '*Description']]
    for p in found:
        url = [f'https://i.ebayimg.com/images/{name}' for name in file_names(p)]
        rows.append(['Add', f'EB{p.number}', '169291', p.title, '', 'Size=S;M;L', '', '', '|'.join(url), '<p>x, y</p>'])
        for size in SIZES[:p.variants]:
            rows.append(['', f'EB{p.number}{size}', '', '', 'Variation', f'Size={size}', '3', '9.95', '', ''])
    return Export('ebay.csv', text(rows).encode(), files_of(found), len(rows) - 1)


def japanese(found):
    """Shift JIS, names of products between other columns, a JSON list of pictures."""
    rows = [['商品管理番号', '商品名', '販売価格', '在庫数', 'カテゴリ', '商品画像', '説明']]
    for p in found:
        rows.append([f'item-{p.number:03}', f'{p.title} レディース', '1980', '3', f'ファッション>{p.category[-1]}', json.dumps([f'https://image.rakuten.co.jp/x/cabinet/{name}' for name in file_names(p)]), '説明'])
    return Export('item.csv', text(rows).encode('cp932'), files_of(found), len(rows) - 1)


def korean(found):
    """cp949; a main picture and further ones."""
    rows = [['상품코드', '상품명', '판매가', '재고', '카테고리', '대표이미지', '추가이미지']]
    for p in found:
        names = file_names(p)
        rows.append([f'P{p.number:05}', f'{p.title} 여성용', '19,900', '3', p.category[-1], names[0], ';'.join(names[1:])])
    return Export('goods.csv', text(rows).encode('cp949'), files_of(found), len(rows) - 1)


def arabic(found):
    """cp1256."""
    rows = [['رمز المنتج', 'اسم المنتج', 'السعر', 'الفئة', 'الصورة']]
    for p in found:
        for name in file_names(p):
            rows.append([f'A{p.number}', f'{p.title} جديد', '9.95', p.category[-1], name])
    return Export('products.csv', text(rows, ';').encode('cp1256'), files_of(found), len(rows) - 1)


def hindi(found):
    """UTF-16 with tabs, as Excel's "Unicode text"."""
    rows = [['उत्पाद कोड', 'उत्पाद का नाम', 'मूल्य', 'श्रेणी', 'चित्र']]
    for p in found:
        rows.append([f'H{p.number}', f'{p.title} नया', '99', p.category[-1], ', '.join(file_names(p))])
    return Export('utpad.txt', text(rows, '\t').encode('utf-16'), files_of(found), len(rows) - 1)


def polish(found):
    """cp1250; file names with blanks, capitals and accents that the folder writes in another form of Unicode."""
    rows, files = ([['Indeks', 'Nazwa produktu', 'Cena', 'Kategoria', 'Zdjęcie']], {})
    for p in found:
        for n in range(p.pictures):
            name = f'Zdjęcie {p.number} ({n + 1}).JPG'
            rows.append([f'PL/{p.number}', f'{p.title} żółty', '9,95', p.category[-1], name])
            files[unicodedata.normalize('NFD', name).lower()] = (p.number, n)
    return Export('produkty.csv', text(rows, ';').encode('cp1250'), files, len(rows) - 1)


def named_files(found):
    """No column of pictures: the files are named after the article number."""
    rows, files = ([['Article no.', 'Name', 'Price', 'Group']], {})
    for p in found:
        rows.append([f'AB-{p.number:03}', p.title, '9.95', p.category[-1]])
        for n in range(p.pictures):
            files[f"ab-{p.number:03}{(f'_{n + 1}' if n else '')}.jpg"] = (p.number, n)
    return Export('list.csv', text(rows).encode(), files, len(rows) - 1)


def named_folders(found):
    """No column of pictures: a folder per product."""
    rows, files = ([['sku', 'title']], {})
    for p in found:
        rows.append([f'F{p.number}', p.title])
        files |= {f'F{p.number}/{n}.png': (p.number, n) for n in range(p.pictures)}
    return Export('list.csv', text(rows).encode(), files, len(rows) - 1)


def json_lines(found):
    """JSON Lines with a list of pictures."""
    lines = [json.dumps({'sku': f'J{p.number}', 'name': p.title, 'images': [f'img/{name}' for name in file_names(p)], 'category': ' > '.join(p.category)}) for p in found]
    return Export('products.jsonl', '\n'.join(lines).encode(), files_of(found), len(found))

KINDS = {function.__name__: function for function in (shopify, woocommerce, magento, merchant, merchant_sizes, torgovlya, prestashop, chinese, german, amazon, bitrix, squarespace, wix, bigcommerce, etsy, shopware, opencart, ebay, japanese, korean, arabic, hindi, polish, named_files, named_folders, json_lines)}
