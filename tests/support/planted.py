"""Texts with planted secrets, harmless texts, and redactors for both."""

import re

from sahool_dlq.deadletter.redaction.redactor import RedactionRules, Redactor

REDACTOR = Redactor()
KEYED = Redactor(key=b"a key")
RULES = RedactionRules(
    keys=("farm_pin",), patterns={"plot": r"PLOT-[0-9]{4}"}, allow_keys=("support_email",)
)
RULED = Redactor(RULES, key=b"a key")

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7\nu3Zc+w==\n-----END RSA PRIVATE KEY-----"
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"

# The text around the secret is kept, so the secret is written between ⟦ and ⟧.
SECRETS = [
    "password='⟦hunter2⟧'",
    "password=⟦hunter2⟧, user=ali",
    "token=⟦abc⟧",
    "Authorization: Bearer ⟦x⟧",
    "{'Authorization': 'Bearer ⟦x⟧', 'Accept': '*/*'}",
    "curl -H 'Authorization: Basic ⟦dXNlcjpwYXNz⟧' https://api",
    "Authorization: ⟦s3cr3t⟧",
    "got Bearer ⟦abc123.def⟧ from proxy",
    "sent Basic ⟦dXNlcjpwYXNz⟧ to it",
    "GET /v1/fields?api_key=⟦k3y⟧&page=2 failed",
    "GET /v1?page=2&access_token=⟦k3y⟧",
    "{'user': 'ali', 'password': '⟦hun ter2⟧'}",
    '{\\"user\\": \\"ali\\", \\"password\\": \\"⟦hunter2⟧\\"}',
    'log: {"client_secret": "⟦hun\\"ter2⟧", "n": 1}',
    "credentials=⟦{'a': 'b', 'c': 'd'}⟧ refused",
    "Cookie: ⟦sid=abc; theme=dark⟧",
    "DB_PASSWORD=⟦hunter2⟧",
    "PGPASSWORD=⟦hunter2⟧ psql",
    "Server=db;User ID=sa;Password=⟦hunter2⟧;Encrypt=no",
    "postgresql://⟦dlq:hunter2⟧@db:5432/dlq",
    "postgresql://⟦dlq:hun@ter2⟧@db:5432/dlq",
    "postgresql://⟦dlq:hunter/2⟧@db:5432/dlq",
    "redis://⟦:hunter2⟧@cache:6379/0",
    "nats://⟦s3cr3t⟧@nats:4222",
    "mail to ⟦ali.k+x@farm.example.com⟧ bounced",
    "mail to ⟦علي@example.com⟧ bounced",
    "call ⟦+967 777 123 456⟧ now",
    "call ⟦+14155550123⟧ now",
    "call ⟦(415) 555-0123⟧ or ⟦415-555-0123⟧",
    "phone: ⟦0551 234 567⟧",
    "card ⟦4111 1111 1111 1111⟧ refused",
    "card ⟦4111111111111111⟧ refused",
    "card ⟦3782-822463-10005⟧ refused",
    f"jwt ⟦{JWT}⟧ expired",
    f"key ⟦{PEM}⟧ is bad",
    "key ⟦-----BEGIN PRIVATE KEY-----\nMIIEowIBAAKCAQEA7⟧",
    "aws ⟦AKIAIOSFODNN7EXAMPLE⟧ denied",
    "push by ⟦ghp_abcdefghijklmnopqrstuvwxyz0123456789⟧",
    "hook ⟦xoxb-123456789012-abcdefghijkl⟧",
    "pay ⟦sk_live_abcdefghijklmnop⟧",
    f"seed ⟦{SEED}⟧ refused",
    # What Go's driver of MySQL takes
    "dial: ⟦app:hunter2⟧@tcp(db:3306)/shop?parseTime=true",
    "dsn=⟦app:hun@t/e:r2⟧@unix(/tmp/mysql.sock)/shop",
    'invalid DSN "⟦app:hunter2⟧@cloudsql(project:region:db)/"',
    # Arguments in frames
    "#1 /srv/auth.php(9): App\\Auth->login('⟦bob', 'hunter2⟧')",
    "#0 [internal function]: Redis->auth('⟦it's p4ss⟧')\n#1 {main}",
    "#0 /a.php(1): PDO->__construct('⟦mysql:host=db;dbn...', 'root', 'hunter2⟧', Array)",
    "E in /a.php:3 Stack trace: #0 /a.php(3): f('⟦bob⟧', 7) #1 /b.php(4): g('⟦hunter2⟧') #2 {main}",
    '    (shop 0.1.0) lib/shop/auth.ex:3: Shop.Auth.login("⟦bob", "hunter2⟧")',
    '    lib/shop/auth.ex:3: Shop.Auth.login(%{name: "⟦bob"}, "hunter2⟧")',
    '    (stdlib 4.0) :lists.foldl("⟦hunter2⟧", [])',
    'Some arguments were given to Shop.Auth.login/2:\n\n  # 1\n  7\n\n  # 2\n  "⟦hunter2⟧"\n',
    '  in function  shop_auth:login/2\n   called as shop_auth:login("⟦bob","hunter2⟧")',
    '[{shop_auth,login,["⟦bob",<<"hunter2⟧">>],[{file,"src/shop_auth.erl"},{line,3}]}]',
    "\tmain::login('⟦bob', 'hunter2⟧') called at /srv/job.pl line 12",
    # Quotes that people write
    "Passwort „⟦correct horse⟧“ ist falsch",
    "the password “⟦correct horse⟧” was refused",
    "Mot de passe « ⟦correct horse⟧ » refusé",
    "Mot de passe\u00a0:\u00a0«\u00a0⟦correct horse⟧\u00a0» refusé",
    "пароль «⟦верный конь⟧» не подходит",
    "Passwort: „⟦correct horse⟧“",
    "token=‘⟦abc def⟧’",
    "密码“⟦hunter2⟧”错误",
    "パスワード「⟦hunter2⟧」が違います",
    "hasło „⟦correct horse⟧” jest złe",
    # Words of other scripts
    "पासवर्ड: ⟦hunter2⟧",
    "पासवर्ड ⟦hunter2⟧ गलत है",
    "รหัสผ่าน ⟦hunter2⟧ ไม่ถูกต้อง",
    "รหัสผ่าน: ⟦hunter2⟧",
    "கடவுச்சொல்: ⟦hunter2⟧",
    "סיסמה: ⟦hunter2⟧",
    "κωδικός πρόσβασης: ⟦hunter2⟧",
    "συνθηματικό=⟦hunter2⟧",
    "лозинка: ⟦hunter2⟧",
    "slaptažodis: ⟦hunter2⟧",
    "contraseña: ⟦hunter2⟧",
    # What languages print
    'array(1) { ["password"]=> string(7) "⟦hunter2⟧" }',
    'array(1) {\n  ["password"]=>\n  string(13) "⟦correct horse⟧"\n}',
    'object(User)#1 (2) {\n  ["pin":protected]=>\n  int(⟦1234⟧)\n}',
    '["password":"App\\User":private]=>\n  string(7) "⟦hunter2⟧"',
    "Array\n(\n    [password] => ⟦correct horse⟧\n    [id] => 7\n)",
    "Array ( [password:protected] => ⟦correct horse⟧ [id] => 7 )",
    '#{password => <<"⟦hunter2⟧">>}',
    '[{password,"⟦hunter2⟧"},{user,"ana"}]',
    '{<<"password">>,<<"⟦letmein⟧">>}',
    '{:password, "⟦letmein⟧"}',
    '{pin, "⟦1234⟧"}',
    "Cookie: '⟦sid=s%3Aabcdef⟧'",
]
HARMLESS = [
    "",
    "tokens_used=512 max_tokens: 4096 token_count=7 tokenizer=bpe",
    "secretary: Bob, authors=Ali, author: x, authentication=ok",
    "token expired; invalid token: expired; the password is wrong",
    "bearer token expired, Bearer realm='x', basic authentication, basic validation",
    "    token = get_token(request)",
    "    password=settings.password, token=None, secret: str, api_key: Optional[str] = None",
    '  File "/srv/app/auth/token.py", line 5, in token',
    "FATAL:  password authentication failed for user",
    "id 4111111111111112 and 1234567890123456 and 12345678901234567890",
    "0.4111111111111111 4111111111111111.5 -45.123456789012345",
    "4b0a7c1e-58f7-4b43-9f0c-0d5f6f0d9f11 12345678-1234-4234-8234-123456789012",
    "2024-05-01T10:00:00.123456+03:00 1714557600000 10.0.0.1:5432 [::1]:80",
    "https://db.example.com:8080/a@b and nats://nats:4222 and git@github.com:o/r.git",
    "node_modules/@scope/pkg org.sahool.Store@1a2b3c4d lodash@4.17.21",
    "tenant_id=t-1 field_id=f-9 farmer_id=farmer-77",
    "ORD-555-123-45678, +0000, +03:00, 1e+10, +12345678.5",
    "#0 /srv/app.php(12): Illuminate\\Pipeline->handle(Object(App\\Request), Array, 7, NULL)",
    "#1 /srv/app.php(3): require('/srv/vendor/auto...')",
    "#2 /srv/app.php(3): Container->make('App\\\\Models\\\\Field')",
    "    (shop 0.1.0) lib/shop/auth.ex:3: Shop.Auth.login/2",
    "    (elixir 1.15.0) lib/enum.ex:1693: anonymous fn/3 in Enum.map/2",
    "the password “is too short”; Passwort „falsch“; token “expired”",
    'expects {"name", "token"} or {password, Hash} and {:error, "no password"}',
    "['password'] => Array\n  [password] => string",
    "รหัสผ่าน invalid",
    "at a@tcp and b:c@tcp(",
]


def plain(planted: str) -> str:
    return planted.replace("⟦", "").replace("⟧", "")


def around(planted: str) -> str:
    return re.sub("⟦[^⟧]*⟧", "*", planted)


def without_marks(text: str) -> str:
    return re.sub(r"\[redacted:[a-z_]+(:[0-9a-f]{12})?\]", "*", text)
