"""Exports that are odd in one way each: encodings, languages, missing headers, keys with faults, quotes, file names.

Like `shop_exports`, whose products they write: each must give all products, and every picture once.
"""

import io
import json
import random

import polars as pl

from shop_exports import SIZES, Export, file_names, files_of, text

ODD = {}


def kind(function):
    """Adds a function to `ODD`."""
    ODD[function.__name__] = function
    return function


# A row of an export is one line, so that its columns can be compared with the header's.
# fmt: off
# ruff: noqa: E501


def woo(hdr, variation_word='variation', enc='utf-8-sig', sep=','):

    def f(found):
        rows = [hdr]
        for p in found:
            url = [f'https://shop.example.com/wp-content/uploads/2024/05/{n}' for n in file_names(p)]
            rows.append([100 + p.number, 'variable' if p.variants > 1 else 'simple', f'WC-{p.number}', p.title, 1, '', '<p>Long text here &amp; more</p>', '9,95', ' > '.join(p.category) + ', Promo', ', '.join(url), ''])
            for n in range(p.variants if p.variants > 1 else 0):
                rows.append([5000 + 10 * p.number + n, 'variation', f'WC-{p.number}-{SIZES[n]}', f'{p.title} - {SIZES[n]}', 1, '', '', '9,95', '', url[0], f'WC-{p.number}'])
        return Export('wc.csv', text(rows, sep).encode(enc), files_of(found), len(rows) - 1)
    return f

ODD['woo_de'] = woo(['ID', 'Typ', 'Artikelnummer', 'Name', 'Veröffentlicht', 'Kurzbeschreibung', 'Beschreibung', 'Regulärer Preis', 'Kategorien', 'Bilder', 'Übergeordnetes Produkt'])
ODD['woo_fr'] = woo(['ID', 'Type', 'UGS', 'Nom', 'Publié', 'Description courte', 'Description', 'Tarif régulier', 'Catégories', 'Images', 'Parent'])
ODD['woo_es'] = woo(['ID', 'Tipo', 'SKU', 'Nombre', 'Publicado', 'Descripción corta', 'Descripción', 'Precio normal', 'Categorías', 'Imágenes', 'Superior'])
ODD['woo_ru'] = woo(['ID', 'Тип', 'Артикул', 'Имя', 'Опубликован', 'Краткое описание', 'Описание', 'Базовая цена', 'Категории', 'Изображения', 'Родительский'])
ODD['woo_tr'] = woo(['Kimlik', 'Tür', 'Stok kodu (SKU)', 'İsim', 'Yayımlanmış', 'Kısa açıklama', 'Açıklama', 'Normal fiyat', 'Kategoriler', 'Görseller', 'Ebeveyn'], enc='cp1254')
ODD['woo_cz'] = woo(['ID', 'Typ', 'Katalogové číslo', 'Název', 'Publikováno', 'Krátký popis', 'Popis', 'Běžná cena', 'Kategorie', 'Obrázky', 'Nadřazené'], enc='cp1250', sep=';')
ODD['woo_zh'] = woo(['ID', '类型', 'SKU', '名称', '已发布', '简短描述', '描述', '常规售价', '分类', '图片', '父级'])
ODD['woo_ja'] = woo(['ID', 'タイプ', 'SKU', '名前', '公開済み', '簡単な説明', '説明', '通常価格', 'カテゴリー', '画像', '親'], enc='cp932')
ODD['woo_pt'] = woo(['ID', 'Tipo', 'SKU', 'Nome', 'Publicado', 'Descrição curta', 'Descrição', 'Preço', 'Categorias', 'Imagens', 'Ascendente'])
ODD['woo_it'] = woo(['ID', 'Tipo', 'SKU', 'Nome', 'Pubblicato', 'Breve descrizione', 'Descrizione', 'Prezzo di listino', 'Categorie', 'Immagine', 'Genitore'])


def simple(hdr, enc, sep=',', suffix=''):

    def f(found):
        rows = [hdr]
        for p in found:
            for n in file_names(p):
                rows.append([f'K{p.number}', p.title + suffix, '9.95', p.category[-1], n])
        return Export('t.csv', text(rows, sep).encode(enc), files_of(found), len(rows) - 1)
    return f

ODD['big5'] = simple(['商品編號', '商品名稱', '價格', '類別', '圖片'], 'big5', suffix=' 女裝')
ODD['greek'] = simple(['Κωδικός', 'Ονομασία', 'Τιμή', 'Κατηγορία', 'Εικόνα'], 'cp1253', ';', ' γυναικεία')
ODD['hebrew'] = simple(['מקט', 'שם המוצר', 'מחיר', 'קטגוריה', 'תמונה'], 'cp1255', ',', ' חדש')
ODD['koi8'] = simple(['Код', 'Наименование', 'Цена', 'Категория', 'Фото'], 'koi8-r', ';', ' женская новинка')
ODD['cp866'] = simple(['Код', 'Наименование', 'Цена', 'Категория', 'Фото'], 'cp866', ';', ' женская новинка')
ODD['thai'] = simple(['รหัสสินค้า', 'ชื่อสินค้า', 'ราคา', 'หมวดหมู่', 'รูปภาพ'], 'cp874', ',', ' ใหม่')
ODD['thai8'] = simple(['รหัสสินค้า', 'ชื่อสินค้า', 'ราคา', 'หมวดหมู่', 'รูปภาพ'], 'utf-8', ',', ' ใหม่')
ODD['viet'] = simple(['Mã sản phẩm', 'Tên sản phẩm', 'Giá', 'Danh mục', 'Hình ảnh'], 'utf-8', ';', ' mới')
ODD['eucjp'] = simple(['商品コード', '商品名', '価格', 'カテゴリ', '画像'], 'euc_jp', ',', ' レディース 春')
ODD['utf16le'] = simple(['code', 'name', 'price', 'category', 'image'], 'utf-16-le', '\t')
ODD['hungarian'] = simple(['Cikkszám', 'Megnevezés', 'Ár', 'Kategória', 'Kép'], 'cp1250', ';', ' női')
ODD['swedish'] = simple(['Artikelnummer', 'Benämning', 'Pris', 'Varugrupp', 'Bild'], 'cp1252', ';', ' för män')
ODD['dutch'] = simple(['Artikelnummer', 'Omschrijving', 'Prijs', 'Groep', 'Afbeelding'], 'utf-8', ';')
ODD['unknown_words'] = simple(['aaa', 'bbb', 'ccc', 'ddd', 'eee'], 'utf-8')
ODD['ukr'] = simple(['Артикул', 'Назва товару', 'Ціна', 'Категорія', 'Зображення'], 'cp1251', ';', ' жіноча')


@kind
def headerless(found):
    rows = []
    for p in found:
        for n in file_names(p):
            rows.append([f'K{p.number}', p.title, '9.95', p.category[-1], n])
    return Export('t.csv', text(rows).encode(), files_of(found), len(rows))


@kind
def shuffled_pictures(found):
    rows = []
    for p in found:
        for n in file_names(p):
            rows.append([f'K{p.number}', p.title, '9.95', p.category[-1], n])
    random.Random(0).shuffle(rows)
    return Export('t.csv', text([['sku', 'name', 'price', 'category', 'image']] + rows).encode(), files_of(found), len(rows))


@kind
def languages_sorted(found):
    rows = []
    for code in ('de', 'en'):
        for p in found:
            rows.append([f'K{p.number}', code, p.title if code == 'de' else f'Something else {p.number * 7}', '9.95', ' | '.join(file_names(p))])
    return Export('t.csv', text([['Product code', 'Language', 'Product name', 'Price', 'Images']] + rows).encode(), files_of(found), len(rows))


@kind
def wrong_key_twice(found):
    rows = []
    for p in found:
        rows.append([f'K{(5 if p.number == 6 else p.number)}', p.title, '9.95', p.category[-1], ','.join(file_names(p))])
    return Export('t.csv', text([['sku', 'name', 'price', 'category', 'images']] + rows).encode(), files_of(found), len(rows))


@kind
def rounded_ean_key(found):
    rows = []
    for p in found:
        for n in file_names(p):
            rows.append(['4.00638E+12', p.title, '9.95', p.category[-1], n])
    return Export('t.csv', text([['EAN', 'name', 'price', 'category', 'image']] + rows).encode(), files_of(found), len(rows))


@kind
def null_keys(found):
    rows = []
    for p in found:
        for n in file_names(p):
            rows.append(['NULL' if p.number % 2 else f'A{p.number}', p.title, '9.95', p.category[-1], n])
    return Export('t.csv', text([['product_id', 'name', 'price', 'category', 'image']] + rows).encode(), files_of(found), len(rows))


@kind
def float_keys(found):
    rows = []
    for p in found:
        for i, n in enumerate(file_names(p)):
            rows.append([f'{4006381333900 + p.number}' + ('.0' if i else ''), p.title, '9.95', p.category[-1], n])
    return Export('t.csv', text([['ean', 'name', 'price', 'category', 'image']] + rows).encode(), files_of(found), len(rows))


@kind
def no_titles(found):
    rows = []
    for p in found:
        for n in file_names(p):
            rows.append([f'A{p.number}', n])
    random.Random(0).shuffle(rows)
    return Export('t.csv', text([['sku', 'photo']] + rows).encode(), files_of(found), len(rows))


@kind
def only_titles(found):
    rows = []
    for p in found:
        for n in file_names(p):
            rows.append([p.title, n])
    return Export('t.csv', text([['name', 'photo']] + rows).encode(), files_of(found), len(rows))


@kind
def newshopify(found):
    rows = [['Title', 'URL handle', 'Description', 'Vendor', 'Product category', 'Type', 'Tags', 'Published on online store', 'Status', 'SKU', 'Barcode', 'Option1 name', 'Option1 value', 'Price', 'Product image URL', 'Image position', 'Image alt text', 'Variant image URL', 'Gift card', 'SEO title', 'SEO description']]
    for p in found:
        names = file_names(p)
        for n in range(max(p.pictures, p.variants)):
            f = n == 0
            rows.append([p.title if f else '', p.slug, '<p>x</p>' if f else '', 'V' if f else '', 'Apparel > Bags' if f else '', p.category[-1] if f else '', 'a,b' if f else '', 'TRUE' if f else '', 'Active' if f else '', f'S{p.number}{n}', '', 'Size' if f else '', SIZES[n % 3], '9', f'https://cdn.shopify.com/s/files/{names[n]}?v=1' if n < p.pictures else '', n + 1, '', '', 'FALSE', '', ''])
    return Export('t.csv', text(rows, end='\n').encode(), files_of(found), len(rows) - 1)


@kind
def spreadsheet_images_columns(found):
    rows = [['Nr.', 'Produkt', 'Preis', 'Bild 1', 'Bild 2', 'Bild 3', 'Lagerbestand']]
    for p in found:
        n = file_names(p)
        rows.append([p.number + 1, p.title, '9,95', *n, *[''] * (3 - len(n)), '7'])
    return Export('t.csv', text(rows, ';').encode('cp1252'), files_of(found), len(rows) - 1)


@kind
def quotes_inches(found):
    rows = ['sku\ttitle\timage']
    for p in found:
        for n in file_names(p):
            rows.append(f'K{p.number}\t"{p.title}" 5" wide\t{n}')
    return Export('t.tsv', '\n'.join(rows).encode(), files_of(found), len(rows) - 1)


@kind
def unclosed_quotes(found):
    rows = ['sku\ttitle\timage']
    for p in found:
        for n in file_names(p):
            rows.append(f'K{p.number}\t"{p.title}\t{n}')
    return Export('t.tsv', '\n'.join(rows).encode(), files_of(found), len(rows) - 1)


@kind
def backslash_quotes(found):
    rows = ['sku,title,image,desc']
    for p in found:
        for n in file_names(p):
            rows.append(f'"K{p.number}","{p.title}, \\"fine\\", more","{n}","a, \\"b\\", c"')
    return Export('t.csv', '\n'.join(rows).encode(), files_of(found), len(rows) - 1)


@kind
def placeholder_image(found):
    rows = [['sku', 'name', 'images']]
    for p in found:
        rows.append([f'K{p.number}', p.title, ','.join([*file_names(p), 'no_image.jpg'])])
    return Export('t.csv', text(rows).encode(), files_of(found) | {'no_image.jpg': (99, 0)}, len(rows) - 1)


@kind
def windows_paths(found):
    rows = [['sku', 'name', 'image']]
    for p in found:
        for n in file_names(p):
            rows.append([f'K{p.number}', p.title, 'C:\\Users\\me\\Bilder\\' + n.upper()])
    return Export('t.csv', text(rows).encode(), files_of(found), len(rows) - 1)


@kind
def percent(found):
    rows = [['sku', 'name', 'image']]
    files = {}
    for p in found:
        for i in range(p.pictures):
            rows.append([f'K{p.number}', p.title, f'https://x.example.com/a%20b/pic%20{p.number}%20{i}.jpg#x'])
            files[f'pic {p.number} {i}.jpg'] = (p.number, i)
    return Export('t.csv', text(rows).encode(), files, len(rows) - 1)


@kind
def same_names_in_folders(found):
    rows = [['sku', 'name', 'image']]
    files = {}
    for p in found:
        for i in range(p.pictures):
            rows.append([f'K{p.number}', p.title, f'/data/{p.number}/{i}.jpg'])
            files[f'{p.number}/{i}.jpg'] = (p.number, i)
    return Export('t.csv', text(rows).encode(), files, len(rows) - 1)


@kind
def salesforce(found):
    rows = [['ID', 'Name__c', 'Master Product', 'Product Type', 'Category Assignments', 'Image View Type large']]
    for p in found:
        rows.append([f'm{p.number}', p.title, '', 'master', p.category[-1], '|'.join('images/large/' + n for n in file_names(p))])
        for s in SIZES[:p.variants]:
            rows.append([f'v{p.number}{s}', p.title, f'm{p.number}', 'variation', p.category[-1], ''])
    return Export('t.csv', text(rows).encode(), files_of(found), len(rows) - 1)


@kind
def parquet(found):
    b = io.BytesIO()
    pl.DataFrame({'product_id': [p.number + 1.0 for p in found for _ in range(p.pictures)], 'title': [p.title for p in found for _ in range(p.pictures)], 'path': [n for p in found for n in file_names(p)]}).write_parquet(b)
    return Export('t.parquet', b.getvalue(), files_of(found), sum(p.pictures for p in found))


@kind
def first_col_picture(found):
    rows = [['Photo', 'Désignation', 'Référence', 'Prix TTC', 'Rayon']]
    for p in found:
        for n in file_names(p):
            rows.append([n, p.title + ' été', f'R{p.number}', '9,95 €', p.category[-1]])
    return Export('t.csv', text(rows, ';').encode('cp1252'), files_of(found), len(rows) - 1)


@kind
def fields_below_labels(found):
    rows = [['Template=custom', 'Version=3', '', '', ''], ['Seller SKU', 'Product Name', 'Product Type', 'Main Image URL', 'Other Image URL1', 'Other Image URL2', 'Parentage', 'Parent SKU'], ['item_sku', 'item_name', 'feed_product_type', 'main_image_url', 'other_image_url1', 'other_image_url2', 'parent_child', 'parent_sku']]
    for p in found:
        urls = ['https://images.example.com/' + n for n in file_names(p)]
        urls += [''] * (3 - len(urls))
        rows.append([f'P-{p.number}', p.title, p.category[-1], *urls[:3], 'parent', ''])
        for s in SIZES[:p.variants]:
            rows.append([f'P-{p.number}-{s}', f'{p.title}, {s}', p.category[-1], *urls[:3], 'child', f'P-{p.number}'])
    return Export('flat.txt', text(rows, '\t').encode(), files_of(found), len(rows) - 3)


@kind
def json_objects(found):
    lines = [json.dumps({'id': p.number, 'name': p.title, 'taxonomy': list(p.category), 'images': [{'src': f'https://cdn.example.com/i/{n}?width=800', 'position': i} for i, n in enumerate(file_names(p))], 'variants': [{'sku': f'a{p.number}'}]}) for p in found]
    return Export('items.jsonl', '\n'.join(lines).encode(), files_of(found), len(found))


def one_row(header, fields, title='{0.title}'):
    """One row per product: its pictures in columns, and other fields that are written from its number."""

    def f(found):
        rows = [[*header, 'Name', 'Image 1', 'Image 2', 'Image 3']]
        for p in found:
            rows.append([*fields(p.number), title.format(p), *(file_names(p) + ['', ''])[:3]])
        return Export('t.csv', text(rows).encode(), files_of(found), len(rows) - 1)
    return f

ODD['constant_code'] = one_row(['Code'], lambda n: ['VAT20'])
ODD['constant_product_id'] = one_row(['id', 'product_id'], lambda n: [1000 + n, 'ACME-1'])
ODD['model_of_some'] = one_row(['SKU', 'Model'], lambda n: [f'S{n}', ('Classic', '')[n % 2]], 'Nordic Linen {0.title}')
ODD['books'] = one_row(['ISBN', 'Language'], lambda n: [9780000000000 + n, ('English', 'German', 'French')[n % 3]])
ODD['stores'] = one_row(['SKU', 'Store'], lambda n: [f'S{n}', ('Berlin', 'Hamburg', 'Bonn')[n % 3]])
ODD['parents_that_are_no_rows'] = one_row(['SKU', 'Parent'], lambda n: [f'S{n}', ('Main', 'Shop')[n % 2]])
ODD['materials'] = one_row(['MATERIALS', 'SKU'], lambda n: [('Linen', 'Brass', 'Oak')[n % 3], ''], '{0.title}, gift for her, handmade decor for the home, fast shipping from our own family workshop')


@kind
def store_rows_without_key(found):
    rows = [['sku', '_store', 'name', 'image']]
    for p in found:
        names = file_names(p)
        rows.append([f'K{p.number}', '', p.title, names[0]])
        rows.append(['', 'de', f'Etwas anderes {p.number * 7}', ''])
        rows += [['', '', '', n] for n in names[1:]]
    return Export('t.csv', text(rows).encode(), files_of(found), len(rows) - 1 - len(found), len(found))


@kind
def size_chart_of_models(found):
    rows = [['SKU', 'Name', 'Images']]
    for p in found:
        rows.append([f'S{p.number}', f"Levi's {500 + p.number} Jeans", ', '.join([*file_names(p), 'sizechart.jpg'])])
    return Export('t.csv', text(rows).encode(), files_of(found) | {'sizechart.jpg': (99, 0)}, len(rows) - 1)


@kind
def size_chart_without_keys(found):
    rows = [['Name', 'Images']]
    for p in found:
        rows.append([f"Levi's {500 + p.number} Jeans", ', '.join([*file_names(p), 'sizechart.jpg'])])
    return Export('t.csv', text(rows).encode(), files_of(found) | {'sizechart.jpg': (99, 0)}, len(rows) - 1)


@kind
def titles_that_begin_with_total(found):
    rows = [['Handle', 'Title', 'Image Src']]
    for p in found:
        rows += [[f'H{p.number}', f'Total Gym {p.title}', '']] + [['', '', n] for n in file_names(p)]
    rows.append(['Total: 14 products', '', ''])
    return Export('t.csv', text(rows).encode(), files_of(found), len(rows) - 2, 1)


@kind
def titles_of_variants(found):
    rows = [['Handle', 'SKU', 'Name', 'Image']]
    for p in found:
        rows += [[f'scarf-{p.number}', f'SC{p.number}{i}', ('Midnight', 'Sahara', 'Ocean')[i], n] for i, n in enumerate(file_names(p))]
    return Export('t.csv', text(rows).encode(), files_of(found), len(rows) - 1)
