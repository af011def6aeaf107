"""Steps for messages in other languages: their characters become ASCII, their column names are
kept.

`SIGNS` converts digits, quotation marks and spaces of every script to ASCII; an ASCII text skips
it. `CODES`, `DATES` and `NAMES` are applied among the steps for English (`template_steps`).
"""

from typing import NamedTuple

from sahool_dlq.deadletter.fingerprint.calendar_words import MONTHS, WEEKDAYS

__all__ = ["CODES", "DATES", "KEPT", "NAMES", "SIGNS", "Step"]

KEPT = "\x01"


class Step(NamedTuple):
    """Replace every match; groups are written `\\1`, as in Python and DuckDB."""

    pattern: str
    replacement: str
    sign: str = ""  # a text in every match, faster to find than the pattern


_DIGIT_ZEROS = "٠۰߀०০੦૦୦௦౦೦൦๐໐༠၀០᠐０𝟎"  # each with its nine followers
_CODE_WORDS = (
    "[Cc][oó]digo|[Cc]odice|[Cc]ode|[Kk][oó]du?|[Кк]ода?|コード|代码|代碼|[错錯][误誤]码|状态码|狀態碼|状态"
    "|[Ss]tatut|[Ss]tatus|[Сс]татус(?:ом|а)?|[Оо]шибка|[Ff]ehler|코드|رمز|कोड"
)
_OF_ERROR = (  # … and between such a word and its number
    "(?: (?:de |di |d['’])?(?:err?[eo]u?re?|error|ошибки|помилки|błędu|الخطأ))?"
)
_NOT_ASCII_LETTER = "\u0080-\U0010ffff"

SIGNS: tuple[Step, ...] = (
    # Invisible characters: joiners, direction marks, soft hyphens.
    Step("[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]", ""),
    Step("[\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]", " "),
    *(
        Step("[" + "".join(chr(ord(zero) + digit) for zero in _DIGIT_ZEROS) + "]", str(digit))
        for digit in range(10)
    ),
    Step("([0-9])[٫．]([0-9])", r"\1.\2"),
    Step("([0-9])[٬，’]([0-9])", r"\1,\2"),
    Step("：", ":"),
    Step("／", "/"),
    Step("[－−‐‑]", "-"),
    Step("＠", "@"),
    Step("＝", "="),
    Step("（", "("),
    Step("）", ")"),
    Step("[＂〃]", '"'),
    # Pairs, in either order.
    Step("« ?([^«»]*?) ?»|»([^«»]*)[«»]|‹ ?([^‹›]*?) ?›|›([^‹›]*)[‹›]", r'"\1\2\3\4"'),
    Step("[„‟]([^„“”‟]*)[“”‟]|[“”]([^„“”]*)[“”]|〝([^〝〞〟]*)[〞〟]", r'"\1\2\3"'),
    Step("「([^「」]*)」|『([^『』]*)』|｢([^｢｣]*)｣|《([^《》]*)》|〈([^〈〉]*)〉", r'"\1\2\3\4\5"'),
    Step("[‚‛]([^‚‘’‛]*)[‘’]|‘([^‚‘’]*)’", r'"\1\2"'),
)

CODES: tuple[Step, ...] = (
    # Words before a number that distinguishes failures.
    Step(f"((?:{_CODE_WORDS}){_OF_ERROR} ?[:=#(]? ?)([0-9]{{3,5}})", rf"\1{KEPT}\2"),
)


def _cased(words: list[str]) -> str:
    """Any of the words, as given or capitalised, longest first."""
    capitals = {word[0]: word[0].upper() for word in words}
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    return "|".join(
        f"[{w[0]}{capitals[w[0]]}]{w[1:]}" if capitals[w[0]] != w[0] else w for w in longest_first
    )


_CLOCK = (
    "(?:,? (?:um |à |at |a las |alle |às |om |kl\\.? ?|в |о |saat )?[0-9]{1,2}:[0-9]{2}"
    "(?::[0-9]{2}(?:[.,][0-9]+)?)?(?: ?(?:Z|UTC|GMT|AM|PM|Uhr|CES?T|MSK|[+-][0-9]{2}:?[0-9]{2}))?)"
)
_TIME = f"{_CLOCK}?"
_HUNGARIAN = (  # puts the year first
    "január|február|március|április|május|június|július|augusztus|szeptember|október|november"
    "|december"
)
# After its first digit.
_DAY = "[0-9]?(?:\\.|er|º|°|ª|-?ого)?"
_MONTH = _cased(MONTHS.split())
# Without a year only months that are no English words: "17 may be", "3 out of 4".
_SURE_MONTH = _cased([w for w in MONTHS.split() if len(w) >= (4 if w.isascii() else 3)])
_END = f"([^A-Za-z{_NOT_ASCII_LETTER}]|$)"

DATES: tuple[Step, ...] = (
    Step(
        "[0-9]{2,4} ?[年년] ?[0-9]{1,2} ?[月월] ?[0-9]{1,2} ?[日号號일]"
        "(?: ?\\([^()]{1,3}\\)| ?[月火水木金土日]曜日?| ?(?:星期|周|週).| ?[월화수목금토일]요일)?"
        "(?: UTC)?"
        "(?: ?(?:上午|下午|午前|午後|오전|오후)? ?[0-9]{1,2}(?::[0-9]{2}(?::[0-9]{2})?"
        "|[时時点點시](?: ?[0-9]{1,2}[分분])?(?: ?[0-9]{1,2}[秒초])?))?",
        "<time>",
    ),
    Step(f"[0-9]{{4}}\\.? (?:{_HUNGARIAN}) [0-9]{{1,2}}\\.?{_TIME}", "<time>"),
    Step(
        f"[0-9]{_DAY}[ /-]?(?:de |d['’])?(?:{_MONTH})\\.?"
        "(?: del?)?,?(?:[ /-][12][0-9]{3}(?: ?(?:г|р|года|року)\\.?)?"
        f"{_TIME}|{_CLOCK})",
        "<time>",
    ),
    Step(f"[0-9]{_DAY} (?:de |d['’])?(?:{_SURE_MONTH}){_END}", r"<time>\1"),
    Step(
        f"(?:{_cased(WEEKDAYS.split())})\\.?,? (?:den |dem |el |le |il )?<time>", "<time>", "<time>"
    ),
)

# Beginnings of words for a name in code or schema, with the quoted name after or before them.
_NAMERS = (
    "[Ss]palte|[Tt]ab(?:elle|ella|ell|ela|eli|el|la|ulk|lo)"
    "|[Rr]ela(?:tion|ció|ci|zion|cj|ç|c)|[Ff]eld|[Aa]ttribut|[Aa]tribut|[Ss]chlüssel"
    "|[Ee]igenschaft|[Cc]olonn|[Cc]hamp |[Cc]hamps|[Cc]l(?:é|ef) |[Cc]ontrainte"
    "|[Pp]ropri[eé]t|[Pp]ar[aáâ]m[eèéê]t|[Cc]olu[mn]+[ae]|[Cc]ampo|[Cc]lave|[Ll]lave"
    "|[Rr]estric|[Pp]ropieda|[Pp]ropriedade|[Ee]xtranjera|[Ff]oránea|[Ee]sterna"
    "|[Éé]trangère|[Cc]have |[Vv]incol|[Cc]hiave|[Kk]olo[mn]|[Kk]olumn|[Kk]olonn|[Vv]eld"
    "|[Uu]nicidad|[Uu]nique |[Uu]nivoc|[Uu]nicidade|[IiÍí]ndice|[Ii]ndeks|[Ss]leutel"
    "|[Ee]igenschap|[Vv]illkor|[Ff]ält|[Nn]yckel|[Ee]genska[pb]|[Ff]elt|[Nn]øgle|[Nn]økke"
    "|[Ss]arak|[Tt]aulu|[Kk]entt?ä|[Aa]vain|[Pp]ol(?:e|a|u|i) |[Kk]lucz|[Oo]granicz"
    "|[Ss]loup|[Kk]líč|[Oo]mezen|[Vv]lastnost|[Oo]szlop|[Tt]ábl|[Mm]ező|[Kk]ulcs"
    "|[Cc]oloan|[Cc]âmp|[Ss]ütun|[Aa]nahtar|[Kk]ısıt|[Aa]lan[ıi]? |[Cc]ột|[Bb]ảng"
    "|[Tt]rường|[Bb]idang|[Kk]unci|[Сс]тол[бп]|[Сс]товп|[Кк]олонк|[Оо]тношен|[Вв]ідношен"
    "|[Тт]аблиц|[Оо]граничен|[Оо]бмежен|[Пп]ол[еяюі]|[Кк]люч|[Сс]войств|[Вв]ластив"
    "|[Аа]т[тр]р?ибут|[Пп]араметр|[Ии]ндекс|[Уу]никальност|[Уу]нікальност|[Іі]ндекс"
    "|[Сс]хем|[Фф]ункци|[Кк]олон|[Σσ]τήλη|[Ππ]ίνακ|[Ππ]εδίο|[Κκ]λειδί|عمود|حقل|جدول|قيد"
    "|مفتاح|علاقة|خاصية|ستون|فیلد|کلید|کالم|עמודה|טבלה|שדה|מפתח|स्तंभ|कॉलम|तालिका|फ़ील्ड"
    "|फ़ील्ड|फील्ड|कुंजी|სვეტ|ინდექს|მითითება|ურთიერთობ|ცხრილ|შეზღუდვ|პარამეტრ|คอลัมน์"
    "|ตาราง|ฟิลด์"
)
# … in scripts without spaces, with little text between.
_NAMERS_UNSPACED = (
    "列|欄位|栏位|字段|表|テーブル|リレーション|カラム|フィールド|項目|キー|制約|属性|关系"
    "|關係|约束|約束|限制|键|鍵|索引|インデックス|スキーマ|パラメータ|参数|參數|칼럼|컬럼"
    "|열|테이블|릴레이션|필드|키|제약|속성|인덱스|참조"
)
_NAMED = (
    "이름의 (?:칼럼|컬럼|릴레이션|테이블|필드|열)|칼럼|컬럼|릴레이션|테이블|필드"
    "|고유 제약|참조키|체크 제약|제약|인덱스|속성|매개 변수|열|키|列|字段|欄位|栏位|表"
    "|关系|關係|カラム|テーブル|フィールド|項目|属性|キー|制約|kolon|sütun|tablo|alan[ıi]"
    "|anahtar|kısıt|nesnesi|oszlop|tábl|mező|sarak|kenttä|कॉलम|फ़ील्ड|फ़ील्ड|फील्ड|तालिका"
    "|स्तंभ|कुंजी"
)
# Words before a value, which may contain spaces; in Chinese and Japanese, "column" before letters
# is a text.
_VALUES = (
    "[Ww]erte?s?|[Vv]aleurs?|[Vv]alor(?:es|e|i)?|[Vv]ärdet?|[Ww]aarde|[Ww]arto[śs][ćc]i?"
    "|[Hh]odnot[auy]|[Dd]eğer[iı]?|[Éé]rték|[Зз]начени[еяю]|[Зз]наченн[яі]|القيمة|قيمة"
    "|القيمه|مقدار|값|值|値|文字列|字符串|字串|문자열|[Cc]adena|[Cc]haîne|[Zz]eichenkette"
)
_TYPES = "型|类型|類型|자료형|輸入|输入|[Tt]yp[aeou]?|[Tt]ipos?|[Тт]ипа?у?"
_QUOTED = """['"]((?:[^'" -]|-[^'" 0-9])+)['"]"""

NAMES: tuple[Step, ...] = (
    Step(
        f"((?:(?:{_NAMERS})[^ '\"<:]{{0,12}}|(?:{_NAMERS_UNSPACED})[^ '\"<:]{{0,2}}) ?:? ?)"
        f"{_QUOTED}",
        rf"\1{KEPT}\2",
    ),
    Step(f"{_QUOTED}( ?(?:{_NAMED}))", rf"{KEPT}\1\2"),
    Step(
        f"((?:{_VALUES})(?:[^'\":]{{0,60}}:)? ?|(?:{_TYPES})[^A-Za-z'\":][^'\":]{{0,40}}: ?)"
        "(?:\"[^\"]*\"|'[^']*')",
        r"\1<str>",
    ),
    Step("(?:\"[^\"]*\"|'[^']*')( ?[値值值])", r"<str>\1"),
)
