"""Names of months and weekdays in dates, from Unicode CLDR.

Languages: en de fr es pt it nl sv da nb fi pl cs hu ro tr ca id hr el ru uk bg ar fa he hi th ka,
in Arabic with those months of the Islamic calendar that are one word. Wide and abbreviated forms,
in lower case, a blank between them. Abbreviations of weekdays below four ASCII letters are left
out.
"""

__all__ = ["MONTHS", "WEEKDAYS"]

MONTHS = (
    "abr abril ago agost agosto agu agustus août apr april aprile aprilie ara aralık aug "
    "august augusti augustus augusztus avr avril ağu ağustos bře březen března cze czerwca "
    "czerwiec dec december decembrie des desember desembre dez dezember dezembro dic dicembre "
    "diciembre dub duben dubna déc décembre eki ekim elo elokuu elokuuta ene enero eyl eylül "
    "feb febbraio febr febrer febrero februar februari februarie february február fev "
    "fevereiro févr février gen gener gennaio giu giugno gru grudnia grudzień haz haziran "
    "heinä heinäkuu heinäkuuta helmi helmikuu helmikuuta huhti huhtikuu huhtikuuta ian "
    "ianuarie iul iulie iun iunie jan janeiro januar januari january január janv janvier "
    "joulu joulukuu joulukuuta juil juillet juin jul julho juli julio juliol july jun june "
    "junho juni junio juny júl július jún június kas kasım kesä kesäkuu kesäkuuta kol kolovoz "
    "kolovoza kvě květen května kwi kwiecień kwietnia led leden ledna lip lipanj lipca lipiec "
    "lipnja lis listopad listopada listopadu loka lokakuu lokakuuta lug luglio lut lutego "
    "luty maalis maaliskuu maaliskuuta maart mag maggio mai maig maio maj maja mar marca "
    "march maret marras marraskuu marraskuuta mars mart martie marts marzec marzo març março "
    "may mayo mayıs mei mrt máj május márc március mär märz nis nisan noiembrie nov november "
    "novembre novembro noviembre oca ocak oct october octobre octombrie octubre okt oktober "
    "október ott ottobre out outubro ožu ožujak ožujka paź październik października pro "
    "prosinac prosinca prosince prosinec ruj rujan rujna sep sept september septembre "
    "septembrie septiembre set setembre setembro settembre sie sierpień sierpnia sij siječanj "
    "siječnja srp srpanj srpen srpna srpnja stu studeni studenoga sty styczeń stycznia svi "
    "svibanj svibnja syys syyskuu syyskuuta szept szeptember tammi tammikuu tammikuuta tem "
    "temmuz touko toukokuu toukokuuta tra travanj travnja velj veljača veljače wrz wrzesień "
    "września zář září ápr április úno únor února červen července červenec června čvc čvn říj "
    "říjen října şub şubat απρ απρίλιος απριλίου αυγ αυγούστου αύγ αύγουστος δεκ δεκέμβριος "
    "δεκεμβρίου ιαν ιανουάριος ιανουαρίου ιουλ ιουλίου ιουν ιουνίου ιούλ ιούλιος ιούν ιούνιος "
    "μάι μάιος μάρ μάρτιος μαΐ μαΐου μαρ μαρτίου νοέ νοέμβριος νοε νοεμβρίου οκτ οκτωβρίου "
    "οκτώβριος σεπ σεπτέμβριος σεπτεμβρίου φεβ φεβρουάριος φεβρουαρίου авг август августа апр "
    "апрель апреля април бер березень березня вер вересень вересня груд грудень грудня дек "
    "декабрь декабря декември жовт жовтень жовтня июл июль июля июн июнь июня квіт квітень "
    "квітня лип липень липня лист листопад листопада лют лютий лютого май мар март марта мая "
    "ное ноември нояб ноябрь ноября окт октомври октябрь октября сент сентябрь сентября сеп "
    "септември серп серпень серпня січ січень січня трав травень травня фев февр февраль "
    "февраля февруари черв червень червня юли юни янв январь января яну януари אוגוסט אוקטובר "
    "אפריל דצמבר יולי יוני ינואר מאי מרץ נובמבר ספטמבר פברואר آوریل أبريل أغسطس أكتوبر اوت "
    "اکتبر دسامبر ديسمبر سبتمبر سپتامبر فبراير فوریه فوریهٔ مارس مايو مهٔ نوامبر نوفمبر يناير "
    "يوليو يونيو ژانویه ژانویهٔ ژوئن ژوئیه ژوئیهٔ अक्टूबर अगस्त अप्रैल जनवरी जुलाई जून दिसंबर "
    "नवंबर फ़रवरी मार्च सितंबर मई "
    "محرم رجب شعبان رمضان شوال "
    "มกราคม กุมภาพันธ์ มีนาคม เมษายน พฤษภาคม มิถุนายน กรกฎาคม สิงหาคม กันยายน "
    "ตุลาคม พฤศจิกายน ธันวาคม იანვარი თებერვალი მარტი აპრილი მაისი ივნისი ივლისი აგვისტო "
    "სექტემბერი ოქტომბერი ნოემბერი დეკემბერი "
)

WEEKDAYS = (
    "csütörtök cuma cumartesi czwartek dienstag dijous dilluns dimanche dimarts dimecres "
    "dinsdag dissabte diumenge divendres domenica domingo donderdag donnerstag duminică "
    "fredag freitag friday giovedì hétfő jeudi jueves jumat kamis kedd keskiviikko "
    "keskiviikkona lauantai lauantaina lundi lunedì lunes luni lör lördag lør lørdag "
    "maanantai maanantaina maandag mandag mardi martedì martes marți mercoledì mercredi "
    "miercuri minggu mittwoch mié miércoles monday montag mån måndag nedjelja neděle niedz "
    "niedziela onsdag pazar pazartesi perjantai perjantaina perşembe petak piątek pondělí "
    "ponedjeljak poniedziałek pátek péntek rabu sabato sabtu salı samedi samstag saturday "
    "selasa senin sobota sonntag srijeda středa subota sunday sunnuntai szerda szombat sáb "
    "sábado sâm sâmbătă sön söndag søn søndag thursday tiistai tiistaina tirs tirsdag tisdag "
    "tors torsdag torstai torstaina tuesday utorak vasárnap vendredi venerdì viernes vineri "
    "vrijdag wednesday woensdag wtorek zaterdag zondag çar çarşamba úterý čet četvrtak "
    "čtvrtek środa δευ δευτέρα κυρ κυριακή πέμ πέμπτη παρ παρασκευή σάβ σάββατο τετ τετάρτη "
    "τρί τρίτη воскресенье вторник вівторок неделя неділя пʼятниця петък понеделник "
    "понедельник понеділок пятница середа среда сряда суббота субота събота четвер четверг "
    "четвъртък שבת الأحد الأربعاء الاثنين الثلاثاء الجمعة الخميس السبت جمعه دوشنبه سه‌شنبه "
    "شنبه پنجشنبه چهارشنبه یکشنبه गुरु गुरुवार बुध बुधवार मंगल मंगलवार रवि रविवार शनि शनिवार "
    "शुक्र शुक्रवार सोम सोमवार "
)
