"""Words that name a secret, in many languages.

Written in the folded spelling of `folded`: lower case, no accents, `_` between words.
"""

import re
import unicodedata

__all__ = [
    "ABOUT",
    "BEFORE",
    "HINT",
    "PHONES",
    "PHRASE_ENDS",
    "SECRETS",
    "SHORT",
    "STEMS",
    "UNBOUNDED",
    "folded",
    "hint",
]

_LETTERS = str.maketrans(
    {"ة": "ه", "ى": "ي", "ی": "ي", "ک": "ك", "ـ": None, "ı": "i", "ł": "l", "ø": "o"}
)


def folded(text: str) -> str:
    """`text` in lower case, without accents and vowel signs; Arabic letters in one spelling."""
    if text.isascii():
        return text.lower()
    return _unaccented(text.casefold()).translate(_LETTERS)


def _unaccented(text: str) -> str:
    signs = unicodedata.normalize("NFKD", text)
    return "".join(sign for sign in signs if unicodedata.category(sign) != "Mn")


def _words(*patterns: str) -> str:
    """One pattern of these words, folded like names; a space matches any word separator."""
    return "|".join(patterns).replace(" ", "_*")


def _words_as_written(*patterns: str) -> str:
    return "|".join(patterns)


UNBOUNDED = (
    *("密码", "密碼", "口令", "密钥", "密鑰", "令牌", "验证码", "パスワード", "비밀번호"),
    *("पासवर्ड", "कूटशब्द", "পাসওয়ার্ড", "ਪਾਸਵਰਡ", "પાસવર્ડ", "கடவுச்சொல்", "పాస్‌వర్డ్", "ಪಾಸ್‌ವರ್ಡ್"),
    *("പാസ്‌വേഡ്", "මුරපදය", "รหัสผ่าน", "ລະຫັດຜ່ານ", "စကားဝှက်", "ពាក្យសម្ងាត់"),
)
"""Words that are found within others: no blank stands before them, or their signs are no letters
to Python's regular expressions."""

# Whole words: `secretary`, `tokenizer` and `passenger` tell nothing.
_LATIN = _words(
    # English, and what programs make of it
    r"[a-z]*passw(?:or)?ds?|[a-z]*passwort|[a-z]*(?:pwd|pswd|passwrd)s?|psw|pw"
    r"|[a-z]*pass ?phrases?",
    r"pass ?(?:codes?|keys?)",
    r"(?:db|user|my|mysql|pg|postgres|redis|smtp|mail|email|ftp|ssh|root|admin|login|auth|http"
    r"|proxy|mq|mongo|rabbitmq|amqp|ldap|sudo|wifi|app|service|svc|nats|ssl|keystore|store)? ?pass",
    r"[a-z]*secrets?|[a-z]*token",
    r"(?:access|api|auth|bearer|device|id|login|push|refresh|session|user) tokens",
    r"(?:access|account|activation|admin|aes|api|app|application|auth|client|consumer|decryption"
    r"|deploy|encryption|function|hmac|host|instrumentation|integration|licen[cs]e|master|private"
    r"|product|root|rsa|secret|service|session|shared|signing|ssh|storage|subscription|webhook"
    r"|write|wallet) keys?",
    r"authorization|credentials?|creds?|cookies?|[a-z]*sess(?:ion)? ids?|bearer|nkey(?: seed)?|jwt",
    r"[a-z]*otps?(?: code)?|mfa code|2fa code|cv[vc]2?|pin(?: code| number)?|puk",
    r"(?:access|activation|auth|authorization|backup|confirmation|one time|recovery|security|sms"
    r"|unlock|verification) codes?",
    r"requirepass|masterauth|mnemonic|(?:seed|recovery|secret) phrase|connection string|sas url",
    r"ssn|social security(?: number| no)?|(?:national|iqama|emirates|civil) (?:id|number|no)"
    r"(?: number| no)?|nationalid|iqama|passport (?:number|no|id)|iban|cpf|cnic",
    r"(?:credit|debit|bank|payment|mada)? ?card (?:number|no|num|pan)|cc (?:number|num)"
    r"|bank account(?: number| no)?|card verification(?: value| code)",
    # French, German
    r"mots? de passe|mdp|phrase de passe|code (?:secret|confidentiel|d acces|pin)",
    r"cle?f? (?:api|d api|privee|secrete|prive|d acces|de chiffrement|d authentification)"
    r"|cle? secrete|jetons?(?: d acces| d authentification| api| de session)?",
    r"numero de carte|carte bancaire|kreditkarten? ?nummer",
    r"[a-z]*(?:kennw[o0]rt|passworter|losungswort|geheimnis|geheimcode|geheimzahl)",
    r"[a-z]*(?:api|geheim|geheimer|privater|zugriffs|zugangs|sicherheits|kryptografischer)"
    r"[ -]?(?:schlu?e?ssel|token|code|daten)|anmeldedaten",
    # Spanish, Portuguese, Italian
    r"contrasen(?:y|i)?as?|palabras? (?:secreta|de paso)|frase (?:de paso|secreta|de acesso)",
    r"claves?(?: (?:de acceso|secreta|privada|api|de api|de la api|de cifrado|de usuario"
    r"|dinamica))?",
    r"llave (?:api|de api|privada|secreta|de acceso)|ficha de acceso|secretos?|credenci(?:al"
    r"|ales|ais)",
    r"codigo (?:de seguridad|secreto|de verificacion|de seguranca|de verificacao|de acceso)",
    r"numero (?:de tarjeta|do cartao|de cartao)|tarjeta de credito",
    r"senhas?|palavras? passe|chave (?:api|de api|da api|secreta|privada|de acesso"
    r"|de criptografia)",
    r"segredos?|chiave (?:api|segreta|privata)|parola (?:d ordine|chiave)|segreto",
    # Turkish, Dutch, Polish, Swedish, Indonesian, …
    r"parola|sifre(?:si)?|(?:gizli|api) anahtar[i]?|wachtwoord|haslo|losenord|adgangskode"
    r"|kata sandi|salasana|heslo|jelszo|mat khau",
    # Russian, Ukrainian
    "[а-я]*парол[а-я]*|секрет(?!ар)[а-я]*|[а-я]*токен[а-я]*",
    "(?:api|апи|приватн[а-я]*|закрыт[а-я]*|секретн[а-я]*) ключ[а-я]*"
    "|ключ[а-я]* (?:api|апи|доступа|шифрования|авторизации)",
    "пин(?: код[а-я]*)?|код[а-я]* (?:подтверждения|доступа|безопасности)|учетные данные"
    "|номер карты",
    "[а-я]*кодовое слово|лозинк[а-я]*|құпия сөз|нууц үг",
    # Other alphabets, and languages with a word of their own
    "κωδικο[συ] προσβασησ|συνθηματικο|პაროლი|գաղտնաբառ|የይለፍ ቃል",
    r"lozinka|geslo|parool|slaptazodis|nenosiri|fjalekalimi?|pasahitza|contrasinal",
)
# Scripts in which a word is found within others: the article stands before, no blank between.
_INNER = _words(
    "(?:كلمه|كلمات)_*(?:ال)?(?:مرور|سر|دخول|عبور)",
    "(?:ال)?(?:رقم|رمز|كود)_*(?:ال)?سري",
    "(?:رمز|كود|رموز)_*(?:ال)?(?:مرور|دخول|وصول|تحقق|تفعيل|امان|حمايه|مصادقه|api|عبور|جلسه|تاكيد)",
    "(?:ال)?(?:مفتاح|مفاتيح)_*(?:ال)?(?:سريه?|خاص|api|واجهه|تشفير|وصول|دخول|تطبيق|برمجه|مصادقه"
    "|توقيع)",
    "بيانات_*(?:ال)?(?:اعتماد|دخول|مصادقه)",
    "با?سو+رد|توكن|پاس_*ورڈ|گذرواژه|جمله_*السر",
    r"(?<![^\W\d_])(?:ال)?سر(?![^\W\d_])",
    "رقم_*(?:ال)?(?:هويه|اقامه|بطاقه|حساب|ايبان|جواز)|(?:ال)?هويه_*(?:ال)?وطنيه|(?:ال)?ايبان",
    "私钥|私鑰|凭证|凭据|憑證|驗證碼|身份证|银行卡号|卡号|通行码|访问码|授权码",
    *("暗証番号", "秘密鍵", "apiキー", "トークン", "암호", "비밀키", "(?:ה)?סיסמ(?:ה|א|ת)"),
    "(?<!加)密码",
    *UNBOUNDED[1:],
)
SECRETS = rf"(?<![^\W\d_])(?:{_LATIN})(?![^\W\d_])|{_unaccented(_INNER)}"
"""Words in a folded name that mean a secret."""

ABOUT = re.compile(
    r"_*(?:counts?|types?|limits?|len(?:gth)?|expir[a-z]*|ttl|us(?:ed|age|es)|polic(?:y|ies)"
    r"|(?:[a-z]+_)?(?:at|on|date|time|days|seconds|age)|endpoints?|ur[li]s?|path|file(?:name)?|dir"
    r"|name|hint|strength|score|status|state|valid(?:ity|ation|ator)?|invalid|required|enabled"
    r"|disabled|verified|version|algorithm|alg|methods?|field|label|placeholder|rules?|min|max"
    r"|size|issuer|provider|services?|manager|store|ref|arn|format|regex|pattern|encoding|kind"
    r"|owner|rotation|rotated|lifetime|index|position|budget|price|cost|error|errors|message"
    r"|reset|changed|exists|present|missing|attempts?|retries|needed|fingerprint|scopes?"
    r"|primaria|foranea|producto|id_map|ids)(?![a-z])"
)
"""Words after the name of a secret if the value is only about it: number, date, place, state."""
BEFORE = re.compile(
    r"(?<![a-z])(?:has|is|no|needs?|requires?|must|can|should|use[sd]?|uses|allow|enable[ds]?|show"
    r"|hide|min|max|num|total|invalid|missing|wrong|expired|forgot(?:ten)?|(?:next|prev[a-z]*)_page"
    r"|page|next|continuation|sync|cancellation|stop|eos|bos|pad|unk|mask|design|public"
    r"|palabras?|input|output|prompt|completion|count)_*$"
)
"""… and words before it: `has_password`, `next_page_token`."""

PHONES = (
    r"(?<![^\W\d_])(?:(?:tele|cell|mobile)?_*(?:phone|mobile|msisdn|whatsapp|telefon[eo]?"
    r"|telephone)"
    r"|(?:tel|fax|gsm|celular|movil|handy(?:nummer)?|portable)(?![^\W\d_]))"
    "|телефон|电话|手机|هاتف|جوال|موبايل|واتساب"
)

SHORT = "pass|pin|pw|psw|mdp|puk|auth|cpf|ssn|سر"
"""Names that are too short to search without the following text."""
HINT = _words_as_written(
    r"passw|passphrase|pass[-_. ]+phrase|pwd|pswd|secret|token|cred|cookie|authoriz|jwt|nkey",
    r"otps?(?:[-_. ]*code)?|[cC][vV][vVcC]|bearer|mnemonic|requirepass|masterauth|iqama"
    r"|iban|cnic|sess(?:ion)?[-_. ]*id",
    r"pass[-_. ]*(?:code|key)|connection[-_. ]*string|sas[-_. ]*url|social[-_. ]*security",
    r"(?:access|account|activation|admin|aes|api|app|application|auth|client|consumer"
    r"|decryption"
    r"|deploy|encryption|function|hmac|host|instrumentation|integration|licen[cs]e|master"
    r"|private"
    r"|product|root|rsa|service|session|shared|signing|ssh|storage|subscription|webhook"
    r"|write|wallet)[-_. ]*key",
    r"(?:access|activation|auth|backup|confirmation|time|recovery|security|sms|unlock"
    r"|verification|mfa|2fa)[-_. ]*code",
    r"(?:national|emirates|civil|passport)[-_. ]*(?:id|no|num)|(?:seed|recovery)[-_. ]*phrase",
    r"(?:card|cc)[-_. ]*(?:n[ou]|pan|verif)|bank[-_. ]*account|pin[-_. ]*(?:code|n)",
    r"mots?[-_. ]*de[-_. ]*passe|phrase[-_. ]*de|code[-_. ]*(?:secr|conf|pin|d[-_. '’]*acc)"
    r"|jeton",
    r"cl(?:e|é|é)f?[-_. ']*(?:api|d|priv|secr)|num(?:e|é|é)ro[-_. ]*d[eo]"
    r"|carte[-_. ]*banc|kreditkart",
    r"kennw|passwort|losungsw|geheim|(?:api|privater|zugriffs|zugangs|sicherheits|grafischer)"
    r"[-_. ]*(?:schl|code|daten)|anmeldedaten",
    r"contrase|palabra|frase|clave|llave|ficha|segred|segret|(?:c(?:o|ó|ó)digo)|tarjeta",
    r"senha|palavra|chave|chiave|parola|(?:s|ş)ifre|anahtar|wachtwoord|has(?:l|ł)o"
    r"|l(?:o|ö|ö)senord|adgangskode|kata[-_. ]*sandi|salasana|heslo|jelsz|m(?:a|ậ)t[-_. ]*kh",
    "парол|секрет|токен|ключ|пин|код|учетны|учётны|номер",
    "كلم|رقم|رمز|رموز|كود|مفتاح|مفاتيح|بيانات|سورد|سوورد|توكن|پاس|گذرواژه|السر|جمل|هوي|يبان",
    "私钥|私鑰|凭证|凭据|憑證|驗證碼|身份证|卡号|通行码|访问码|授权码",
    "暗証番号|秘密鍵|キー|トークン|비밀|암호|סיסמ",
    "лозинк|құпия|нууц|κωδικ|συνθηματικ|პაროლი|գաղտնաբառ|ይለፍ",
    "lozinka|geslo|parool|slapta[zž]|nenosiri|fjal[eë]kalim|pasahitza|contrasinal",
    *UNBOUNDED,
)
"""Every name of a secret contains one of these, in any case, for Rust and for columns; see `SHORT`.
"""

STEMS = tuple(
    """
pass pwd pswd psw pw secret token cred cookie auth jwt nkey otp cvv cvc bearer mnemonic
iqama iban cnic cpf ssn social sess key code connection sas phrase card cc bank pin puk
national civil emirates mdp jeton cle numero carte kredit kennw losung geheim schl daten contrase
palabra frase clave llave ficha segre tarjeta digo senha palavra chave chiave parola ifre
anahtar wachtwoord haslo senord adgang sandi salasana heslo jelsz khau masterauth lozinka geslo
parool slapta nenosiri kalim pasahitza contrasinal
""".split()  # noqa: SIM905  (a list is longer to read)
)
"""One of them is in every ASCII name of a secret; faster to search than the names."""

PHRASE_ENDS = frozenset(
    """
key keys passe code codes phrase number no num string id ids account pan token value
passphrase acces api privee secrete secreta privada acceso acesso paso passe chave chiave
segreta privata seguridad verificacion seguranca verificacao tarjeta cartao credito
confidentiel secret schlussel schluessel ключ ключа доступа подтверждения карты данные
слово код sandi المرور السر مرور سر السري سري الدخول دخول الوصول وصول التحقق تحقق التفعيل
الامان العبور عبور الخاص خاص الواجهه التشفير التطبيق المصادقه الاعتماد الهويه هويه الاقامه
اقامه البطاقه الحساب الايبان الوطنيه السريه التاكيد προσβασησ сөз үг ቃል
""".split()  # noqa: SIM905  (a list is longer to read)
)
"""Last words of names that people write with spaces."""


def hint(names: list[str]) -> str:
    """`HINT` and the user's own key names, which are folded."""
    return "|".join([HINT, *(re.escape(name).replace("_", "[-_. ]*") for name in names)])
