"""Kinds of secrets and of harmless look-alikes, made anew from a seed; no credential is real.

A kind is a template. `{name}` stands for a random value: those of `SECRETS` must not be found in
what a drain stores. Tokens are put together from parts, so that no scanner takes them for a leak.
`HELD_OUT` and its like were written before the patterns were tried on them: of these kinds 1.9 %
leaked and 2.5 % were masked in vain, before the first was mended.
"""

import base64
import random
import re
import string
from collections.abc import Callable

LETTERS = string.ascii_letters + string.digits
HEX = "0123456789abcdef"


def luhn(digits: str) -> str:
    doubled = [sum(divmod(2 * int(d), 10)) for d in digits[::-2]]
    return digits + str(-(sum(map(int, digits[-2::-2])) + sum(doubled)) % 10)


class Values:
    """Random values by name; the same for the same seed."""

    def __init__(self, seed: str) -> None:
        self.rng = random.Random(seed)

    def some(self, signs: str, count: int) -> str:
        return "".join(self.rng.choice(signs) for _ in range(count))

    def mixed(self, count: int) -> str:
        """Lower-case and upper-case letters and digits, at least one of each."""
        head = self.rng.choice(string.ascii_letters)
        text = list("aB7kQ2" + self.some(LETTERS, max(0, count - 7)))
        self.rng.shuffle(text)
        return (head + "".join(text))[:count]

    def digits(self, count: int) -> str:
        return self.some("123456789", 1) + self.some(string.digits, count - 1)

    def iban(self, country: str, count: int) -> str:
        body = self.digits(count - 4)
        rest = 98 - int(body + "".join(str(int(c, 36)) for c in country) + "00") % 97
        return f"{country}{rest:02}{body}"

    def value(self, name: str) -> str:
        kind, _, argument = name.partition("_")
        count = int(argument) if argument.isdigit() else 0
        makers: dict[str, Callable[[], str]] = {
            "pw": lambda: self.mixed(count or 11),
            "odd": lambda: self.mixed(6) + "#" + self.mixed(4) + "!" + self.some(string.digits, 1),
            "b": lambda: self.mixed(count),
            "hex": lambda: self.some(HEX, count),
            "up": lambda: "Q7" + self.some(string.ascii_uppercase + string.digits, count - 2),
            "low": lambda: "k4" + self.some(string.ascii_lowercase + string.digits, count - 2),
            "n": lambda: self.digits(count),
            "uuid": lambda: "-".join(self.some(HEX, n) for n in (8, 4, 4, 4, 12)),
            "visa": lambda: luhn("4" + self.some(string.digits, 14)),
            "master": lambda: luhn("5" + self.some("12345", 1) + self.some(string.digits, 13)),
            "amex": lambda: luhn("37" + self.some(string.digits, 12)),
            "mada": lambda: luhn("9682" + self.some("01", 1) + self.some(string.digits, 10)),
            "imei": lambda: luhn("35" + self.some(string.digits, 12)),
            "luhn": lambda: luhn("1" + self.some(string.digits, count - 2)),
            "iban": lambda: self.iban(argument[:2], int(argument[2:])),
            "word": lambda: self.rng.choice(["nitrogen", "irrigation", "harvest", "parcel"]),
        }
        return makers[kind]()


_ARABIC = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
FORMS: dict[str, Callable[[str], str]] = {
    "": str,
    "dots": lambda v: ".".join(v[i : i + 4] for i in range(0, len(v), 4)),
    "blanks": lambda v: " ".join(v[i : i + 4] for i in range(0, len(v), 4)),
    "dashes": lambda v: "-".join(v[i : i + 4] for i in range(0, len(v), 4)),
    "arabic": lambda v: v.translate(_ARABIC),
}


_VALUE = re.compile(
    r"\{((?:pw|odd|b|hex|up|low|n|uuid|visa|master|amex|mada|imei|luhn|iban"
    r"|word)(?:_\w+)?)(?:\|(\w+))?\}"
)


def made(template: str, seed: int) -> tuple[str, list[str]]:
    """A text of this kind, and its values: `{pw}`, `{visa

    dots}`.

    `·` joins the parts of a token and is removed; the text in `⟨…⟩` is encoded as base64.
    """
    values = Values(f"{template}{seed}")
    secrets: list[str] = []

    def filled(match: re.Match[str]) -> str:
        secrets.append(FORMS[match[2] or ""](values.value(match[1])))
        return secrets[-1]

    def encoded(match: re.Match[str]) -> str:
        secrets.append(base64.b64encode(match[1].encode()).decode())
        return secrets[-1]

    text = _VALUE.sub(filled, template.replace("\\n", "\n").replace("·", ""))
    return re.sub("⟨([^⟩]*)⟩", encoded, text), secrets


# Values under these keys, in JSON, and in text as `key=value` and `key: value`.
KEYS = """
password passwd pwd pass db_pass userPassword new_password passphrase secret client_secret
token accessToken refresh_token id_token bot_token api_key apiKey x-api-key private_key
encryption_key account_key aws_secret_access_key authorization session_id otp
verification_code security_code كلمة_المرور كلمة_السر الرقم_السري رمز_الدخول المفتاح_السري
رمز_التحقق كلمة_مرور مفتاح_API السر باسورد mot_de_passe motDePasse mdp clé_api clé_secrète
jeton_d_acces code_secret passwort Kennwort geheimnis API-Schlüssel zugangstoken
Zugangscode contraseña clave clave_secreta clave_api llave_privada palabra_secreta
código_de_seguridad senha chave_api chave_secreta segredo palavra_passe
código_de_verificação пароль секрет токен секретный_ключ ключ_доступа пин_код 密码 用户密码 密钥
口令 令牌 私钥 验证码 密碼
""".split()  # noqa: SIM905  (a list is longer to read)
HELD_OUT_KEYS = """
DB_PASSWD smtpPassword login_pwd keystorePassword appSecret webhook_secret signingKey
master_key device_token csrf_token recovery_code connection_string mfa_code
SECRET_KEY_BASE storageKey jwt كلمةالمرور كلمة_المرور_الجديدة الرمز_السري رمز_الوصول
مفتاح_التشفير كلمه_السر بيانات_الاعتماد توكن nouveau_mot_de_passe clef_privee jeton
phrase_de_passe code_confidentiel benutzerpasswort sicherheitscode Geheimer_Schlüssel
kreditkartennummer contrasena clave_de_acceso llave_api credenciales token_de_acceso
senha_do_usuario chave_privada chave_de_acesso пароль_пользователя секретное_слово
api_ключ код_подтверждения 登录密码 访问令牌 银行卡号 身份证号 凭证
""".split()  # noqa: SIM905  (a list is longer to read)

SECRETS = r"""
login --user ali --password {pw} failed
exec: tool --token {b_20} --retries 3
run --api-key={b_24} --verbose
connect -Password {odd} -Server db
curl -u ali:{pw} https://api.example
curl --user ali:{odd} https://api.example
mysql -u root -p{pw} sahool
sshpass -p {pw} ssh root@host
pass={pw} user=ali
connect(user=ali, pass='{odd}')
{"name": "password", "value": "{pw}"}
{"key": "API_KEY", "value": "{b_24}"}
{"value": "{pw}", "name": "client_secret"}
[["Authorization", "Token {b_24}"], ["Accept", "*"]]
{'name': 'db_password', 'value': '{pw}'}
env: name: DB_PASSWORD, value: {pw}
<password>{pw}</password>
<ns:ApiKey type="text">{b_24}</ns:ApiKey>
<user name="ali" password="{pw}"/>
<entry key="password">{pw}</entry>
<property name="secret" value="{b_20}"/>
<Password><![CDATA[{odd}]]></Password>
&lt;password&gt;{pw}&lt;/password&gt;
password: |\n  {pw}\n  {b_20}\nuser: ali
private_key: >-\n    {b_30}\n    {b_30}\nname: x
tokens_file: a\nsecrets:\n  - {b_20}\n  - {b_20}\nname: x
the password is {pw}
your password is: {odd}, keep it
the API key is {b_24} now
PIN is {n_4}
OTP {n_6} was refused
using password {pw} for ali
كلمة المرور: {pw}
كلمة السر هي {pw}
الرقم السري: {n_4} مرفوض
mot de passe : {pw}
le mot de passe est {pw}
Passwort: {pw} falsch
das Passwort ist {pw}
contraseña: {pw}
la contraseña es {pw}
a senha é {pw}
пароль: {pw}
пароль — {pw}
密码：{pw}
密码是{pw}
GET https://a.blob.example/c?sv=2020-08-04&se=2026-01-01&sr=b&sig={b_43}%3D
GET https://b.s3.example/k?X-Amz-Date=20260101T000000Z&X-Amz-Signature={hex_64}
GET https://cdn.example/v?Expires=1767225600&Signature={b_60}~&Key-Pair-Id=K1
GET https://storage.example/o?X-Goog-Expires=600&X-Goog-Signature={hex_64}
Authorization: AWS4-HMAC-SHA256 Credential=x/20260101, SignedHeaders=host, Signature={hex_64}
POST /hook X-Hub-Signature-256: sha256={hex_64}
callback?code={b_32}&state=x
push by ghp·_{b_36}
clone with glpat·-{b_20}
xo·xb-{n_12}-{n_12}-{b_24}
https://hooks.slack.com/serv·ices/T{up_9}/B{up_9}/{b_24}
https://discord.com/api/webhooks/{n_18}/{b_68}
pay sk·_live_{b_24}
key-{hex_32} of the mail service
{hex_32}-us12 refused
SG·.{b_22}.{b_43}
twilio S·K{hex_32}
bot {n_10}:AA{b_33} stopped
discord M{b_23}.{b_6}.{b_27}
AK·IA{up_16} denied
AI·za{b_35} has no quota
npm·_{b_36}
pypi·-AgEIcHlwaS5vcmc{b_80}
hf·_{b_34}
sk·-proj-{b_48}
sk·-ant-api03-{b_80}
dop·_v1_{hex_64}
shpat·_{hex_32}
glsa·_{b_32}_{hex_8}
lin·_api_{b_40}
ntn·_{b_46}
dp.pt·.{b_43}
sq0atp·-{b_22}
sq0csp·-{b_43}
AccountName=x;AccountKey={b_86}==;EndpointSuffix=y
dapi{hex_32} of the notebook
hvs·.{b_90}
NRAK·-{up_27}
https://{hex_32}@o123.ingest.sentry.example/45
jdbc:postgresql://db:5432/x?user=ali&password={pw}
jdbc:oracle:thin:scott/{pw}@db:1521/orcl
jdbc:sqlserver://db;user=sa;password={odd};encrypt=true
sqlplus scott/{pw}@db
scott/{pw}@//db:1521/orcl refused
mongodb+srv://ali:{pw}@cluster.example/db
amqp://ali:{odd}@mq:5672/
ALTER USER ali IDENTIFIED BY '{pw}'
ALTER ROLE ali PASSWORD '{pw}'
Server=db;Uid=sa;Pwd={pw};
config ⟨{"user": "ali", "password": "{pw}"}⟩ is bad
env ⟨DB_PASSWORD={pw}⟩
url ⟨postgresql://ali:{pw}@db/x⟩
header ⟨Authorization: Bearer {b_24}⟩
password%3D{pw}%26user%3Dali
$2b$12${b_53} does not match
otpauth://totp/x?secret={up_32}&issuer=y
machine h login ali password {pw}
requirepass {pw}
Cookie: sid={b_24}; theme=dark
Set-Cookie: session={b_24}; Path=/
    connect('postgresql://ali:{pw}@db/x')
    login(user, password='{pw}')
""".strip().split("\n")

HELD_OUT = r"""
deploy --secret-key {b_24} --region me
--client-secret={b_20}
psql --set password={pw} -f x.sql
docker login -u ali -p {pw} registry.example
redis-cli -h cache -a {pw} ping
curl --proxy-user 'ali:{pw}' x
java -Djavax.net.ssl.keyStorePassword={pw} -jar x
export API_TOKEN={b_24}
set PGPASSWORD={pw}&& psql
{"Name": "ApiToken", "Value": "{b_24}"}
{"field": "passwd", "data": "{pw}"}
('password', '{pw}')
{"headers": [{"name": "X-Api-Key", "value": "{b_24}"}]}
<credentials><user>ali</user><secretKey>{b_24}</secretKey></credentials>
<add key="ClientSecret" value="{b_24}"/>
<connection pwd="{pw}" user="x"/>
<wsse:Password Type="PasswordText">{pw}</wsse:Password>
client_secret: >\n  {b_30}\nnext: x
- name: API_TOKEN\n  value: {b_24}
the token was {b_24}, which expired
the secret is '{pw}'
passcode is {n_6}
verification code: {n_6}
your OTP is {n_6}
with password "{odd}"
wrong password '{pw}' for ali
رمز التحقق: {n_6}
كلمة المرور هي: {pw}
المفتاح السري = {b_24}
clé API : {b_24}
Kennwort={pw}
clave de acceso: {pw}
la clave es {pw}
chave secreta: {b_20}
токен: {b_24}
секретный ключ: {b_24}
验证码: {n_6}
口令={pw}
GET https://x/y?token={b_30}&page=1
GET https://x/y?access_key={b_20}&q=1
https://oss.example/o?OSSAccessKeyId=x&Expires=1&Signature={b_27}%3D
https://x.example/d?hmac={hex_64}
https://outlook.example/webhook/{uuid}@{uuid}/IncomingWebhook/{hex_32}/x
gho·_{b_36}
github·_pat_{b_22}_{b_59}
glrt·-{b_20}
xa·pp-1-A{up_10}-{n_13}-{hex_64}
rk·_live_{b_24}
whsec·_{b_32}
GOCSPX·-{b_28}
ya29·.{b_60}
AS·IA{up_16}
xkeysib·-{hex_64}-{b_16}
sntrys·_{b_60}
PMAK·-{hex_24}-{hex_34}
ATATT3x·FfGF0{b_60}={hex_8}
figd·_{b_40}
dckr·_pat_{b_27}
rubygems·_{hex_48}
EAAA·{b_60}
r8·_{b_37}
gsk·_{b_52}
pscale_tkn·_{b_43}
sbp·_{hex_40}
CFPAT·-{b_43}
FlyV1 fm2·_{b_80}
tskey·-auth-{b_12}-{b_32}
AGE-SECRET·-KEY-1{up_58}
postgresql://ali:{odd}@db/x
mysql://root:{pw}@127.0.0.1:3306/x
ldap://cn=x:{pw}@ldap:389
redis://default:{pw}@cache:6379
sftp://ali:{pw}@files/x
cloudinary://{n_15}:{b_27}@sahool
jdbc:mysql://db/x?user=a&password={pw}&useSSL=false
jdbc:oracle:oci:hr/{pw}@orcl
Data Source=db;User Id=a;Password={pw};
DefaultEndpointsProtocol=https;AccountName=x;AccountKey={b_86}==
Endpoint=sb://x/;SharedAccessKeyName=r;SharedAccessKey={b_43}=
CREATE USER ali WITH PASSWORD '{pw}'
CREATE USER ali IDENTIFIED BY "{pw}"
data ⟨{"client_secret":"{b_24}","id":7}⟩
data ⟨password: {pw}⟩
data ⟨token={b_30}⟩
Authorization: Basic ⟨ali:{pw}⟩
Proxy-Authorization: Bearer {b_30}
Authorization: ApiKey {b_30}
X-Auth-Token: {b_24}
X-Amz-Security-Token: {b_60}
$argon2id$v=19$m=65536,t=3,p=4${b_22}${b_43}
$6${b_8}${b_60}
eyJ{b_20}.eyJ{b_30}.{b_43}
""".strip().split("\n")

NUMBERS = r"""
card {visa} refused
card {visa|dots} refused
card {visa|blanks} refused
card {visa|dashes} refused
card {master} refused
card {amex} refused
card {mada} refused
card {mada|blanks} refused
بطاقة {visa|arabic} مرفوضة
بطاقة {mada|arabic} مرفوضة
call 05{n_8} now
call 05{n_1} {n_3} {n_4} now
call 009665{n_8} now
call +9665{n_8} now
call +966 5{n_1} {n_3} {n_4} now
call 9665{n_8} now
اتصل 05{n_8}
phone: {n_9}
رقم الجوال: {n_9}
iqama 2{n_9} expired
رقم الإقامة: 2{n_9}
رقم الهوية 1{n_9}
national id: 1{n_9}
IBAN {iban_SA24} refused
IBAN {iban_GB22} refused
to {iban_DE22|blanks} refused
mail ali.{low_6}@example.org
Emirates ID 784-1990-{n_7}-1
""".strip().split("\n")

HELD_OUT_NUMBERS = (
    r"""
pan={visa}
card number {master|dots}
الدفع ببطاقة {master|arabic|}
رقم البطاقة {mada}
call 00967{n_9} now
call 00971 5{n_8} now
mobile 05{n_1}-{n_3}-{n_4}
هاتف: 05{n_8}
WhatsApp {n_9}
Iqama No. 2{n_9}
هوية: 1{n_9}
{iban_AE23} is closed
SA IBAN: {iban_SA24|blanks}
contact {low_8}@farm.example.com
""".replace("|}", "}")
    .strip()
    .split("\n")
)

HARMLESS = r"""
password_changed_at=2026-01-01T00:00:00Z
{"password_changed_at": "2026-01-01T00:00:00Z", "has_password": true}
{"has_password": "yes", "next_page_token": "{b_24}"}
{"token_endpoint": "https://id.example/token", "token_type": "x"}
next_page_token={b_24}
secret: false
{"secret": false, "password": null, "token": ""}
password: too short
password: must have 8 characters
Password: required
password is too short
the password is wrong
invalid token: expired
token is expired
token expired at 2026-01-01
Unexpected token u in JSON at position 0
the secret was not found
the API key is missing
imei {imei} offline
device {imei} offline
order {luhn_16} failed
sensor {luhn_15} is silent
ticket {luhn_13} is closed
tenant_id=05{n_8}
{"tenant_id": "4111111111111111", "field_id": "05{n_8}", "farmer_id": "a@example.org"}
farmer_id: 05{n_8}
trace {hex_32} span {hex_16}
commit {hex_40}
sha256:{hex_64}
sha512-{b_86}==
etag "{hex_32}"
id {uuid}
at 1714557600 and 1714557600123
order ORD-2026-{n_8}
pi_{b_24} is canceled
evt_{b_24}
user_{b_27}
tokens_used=512 max_tokens=4096 token_count=7
    token = get_token(request)
    password = settings.password
    raise ValueError(f"bad token: {token}")
    self._password = config["db"]["password"]
    api_key=os.environ["API_KEY"],
    if password != confirm: raise AuthError("password: too short")
    headers = {"Authorization": f"Bearer {token}"}
docker run -u 1000:1000 image
docker pull repo/image@sha256:{hex_64}
lodash@4.17.21 and @scope/pkg@1.2.3
git@github.com:o/r.git
10.0.0.1:5432 refused
https://db.example.com:8080/a?page=2&size=50&sort=name
-45.123456789012345, 36.{n_8}
secretary: Bob, author: Ali, authentication: ok
keyboard=us key=value monkey: banana
primary_key=id foreign_key: user_id
palabra_clave: trigo
كلمة مفتاحية: قمح
رمز المنتج: {n_6}
密码错误
пароль неверный
mot de passe incorrect
Passwort falsch
max_password_length=64
{"required": ["password", "email"]}
{"name": "color", "value": "{pw}"}
{"field": "password", "error": "too short"}
<name>{word}</name>
<token/>
password=***
password=<hidden>
password=${DB_PASSWORD}
api_key: ${{ secrets.API_KEY }}
token=%s
path /srv/app/auth/token.py line 5
org.springframework.security.authentication.BadCredentialsException
com.acme.token.TokenService.refresh(TokenService.java:42)
base64 aGVsbG8gd29ybGQgaG93IGFyZSB5b3U=
lot 20260101-000{n_3}
EAN 40{n_11}
version 2026.1.{n_3} build {n_5}
+03:00 1e+10 +12345678.5
passenger 12345678 boarded
compass: 270
signature: f(x) -> y
""".strip().split("\n")

HELD_OUT_HARMLESS = r"""
{"password_reset_at": "2026-05-05", "token_expires_in": 3600}
{"is_secret": true, "requires_password": false, "password_min_length": 8}
{"page_token": "{b_30}", "continuation_token": "{b_30}"}
{"tokenUrl": "https://id.example/oauth", "secretName": "db-creds"}
{"token_count": 512, "total_tokens": 900, "stop_token": "</s>"}
password expired
password: expired
password must not be empty
secret not set
missing secret: none given
Token type: Bearer
token: invalid
no password supplied
fe_sendauth: no password supplied
password authentication failed for user "ali"
JWT expired 5 seconds ago
cookie rejected
imei={imei}
IMEI {imei} and {imei}
serial 89{n_17}
barcode {n_12}
invoice {luhn_12}
field_id={luhn_16}
{"farmer_id": "1{n_9}", "area": 12.5}
tenant_id: {b_24}
request_id={uuid} trace_id={hex_32}
sha1 {hex_40} md5 {hex_32}
image sha256:{hex_64}
cus_{b_14} and ch_{b_24}
01HV{up_22}
msg-{hex_24}
s3://bucket/path/{hex_32}.parquet
part-00000-{uuid}-c000.snappy.parquet
pod ndvi-7d9f8b6c5d-x2x{n_1} restarted
node_modules/@babel/core/lib/index.js:12:5
    token: str = Depends(get_token)
    password = getpass.getpass()
    assert token == other.token
    return self.client.login(user, self.password)
    secret = secrets_manager.get(name)
    const token = req.headers.authorization;
    String password = request.getParameter("password");
File "/srv/app/password.py", line 3, in check_password
KeyError: 'password'
ValidationError: password: field required
{"errors": {"password": "is too weak"}}
{"loc": ["body", "password"], "msg": "field required"}
<input name="password" type="password"/>
<errors>password is required</errors>
password: [hidden]
token=None secret=null
API_KEY is not set
usage: tool --password PASSWORD --token TOKEN
--password-file /run/secrets/db
session expired, sessions=5
secretariat: open
broken pipe, pin 17 low
code=404 status=401
error code: 5021
GET /api/v1/fields?limit=100&cursor=abc
https://example.org/reset?lang=en
192.168.10.20:5672 10.20.30.40
2026-11-29T22:40:00.123456+03:00
lat=24.7135517 lon=46.6752957
size 1234567890123 bytes
offset 9876543210987654
0.4111111111111111
temperature: 41.11 humidity: 11.11
كلمة: قمح
الرمز: خطأ
رقم الطلب: {n_8}
الحقل ٤٥ المساحة ١٢٫٥
мощность: 500
序列号: {n_8}
clave primaria: id
chave estrangeira
Schlüsselwort: Weizen
ConnectionError: token bucket is empty
rate limit: 100 tokens per minute
tokenizer=bpe vocabulary=50000
public_key=abc fingerprint=SHA256:{b_43}
""".strip().split("\n")
