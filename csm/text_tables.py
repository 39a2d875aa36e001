"""Written forms in English texts and the words that they stand for: units, currencies, places, times."""

from __future__ import annotations

from typing import NamedTuple

#: Unit -> its name, of one.
UNITS = {
    "kg": "kilogram", "g": "gram", "mg": "milligram", "km": "kilometer", "m": "meter", "cm": "centimeter",
    "mm": "millimeter", "lb": "pound", "lbs": "pound", "oz": "ounce", "mph": "mile an hour",
    "ml": "milliliter",
    "kHz": "kilohertz", "Hz": "hertz", "MHz": "megahertz", "GHz": "gigahertz", "MB": "megabyte",
    "GB": "gigabyte", "TB": "terabyte", "kB": "kilobyte", "KB": "kilobyte", "ms": "millisecond",
    "hr": "hour", "hrs": "hour", "min": "minute", "mins": "minute", "sec": "second", "secs": "second",
    "°C": "degree Celsius", "°F": "degree Fahrenheit", "°": "degree", "kWh": "kilowatt hour",
    "kW": "kilowatt", "km/h": "kilometer an hour", "m/s": "meter a second", "m²": "square meter",
    "L": "liter", "V": "volt", "W": "watt", "dpi": "dot per inch", "km/s": "kilometer a second",
    "km²": "square kilometer", "cm²": "square centimeter", "ft²": "square foot", "m³": "cubic meter",
    "cm³": "cubic centimeter", "µm": "micrometer", "μm": "micrometer", "µs": "microsecond",
    "μs": "microsecond", "µg": "microgram", "μg": "microgram", "Ω": "ohm", "kΩ": "kilohm",
    "tsp": "teaspoon", "tbsp": "tablespoon", "ft": "foot", "yd": "yard", "yds": "yard", "mi": "mile",
    "h": "hour", "kcal": "kilocalorie", "Mbps": "megabit per second", "rpm": "revolution per minute",
    "mpg": "mile per gallon", "fps": "frame per second",
    "kph": "kilometer an hour", "kmh": "kilometer an hour", "bpm": "beat per minute",
    "wpm": "word per minute", "ppm": "part per million", "ppb": "part per billion",
    "psi": "pound per square inch", "kbps": "kilobit per second", "Gbps": "gigabit per second",
    "PB": "petabyte", "px": "pixel", "ns": "nanosecond", "nm": "nanometer", "mL": "milliliter",
    "µL": "microliter", "μL": "microliter", "dl": "deciliter", "dL": "deciliter", "cl": "centiliter",
    "gal": "gallon", "qt": "quart", "qts": "quart", "ha": "hectare", "dB": "decibel", "cal": "calorie",
    "Pa": "pascal", "hPa": "hectopascal", "kPa": "kilopascal", "MPa": "megapascal", "kJ": "kilojoule",
    "kN": "kilonewton", "kV": "kilovolt", "mV": "millivolt", "mW": "milliwatt", "MW": "megawatt",
    "GW": "gigawatt", "Wh": "watt hour", "MWh": "megawatt hour", "GWh": "gigawatt hour",
    "TWh": "terawatt hour", "mA": "milliamp", "mAh": "milliamp hour", "hp": "horsepower",
    "mmol": "millimole", "wk": "week", "wks": "week", "yr": "year", "yrs": "year", "pts": "point",
    "pt": "point", "bps": "basis point", "Tbsp": "tablespoon", "Tsp": "teaspoon",
    "sq ft": "square foot", "sq. ft": "square foot", "sq m": "square meter",
    "sq km": "square kilometer", "sq mi": "square mile", "cu ft": "cubic foot",
}  # fmt: skip
#: Written with a full stop, which does not end the sentence before a small letter.
DOTTED_UNITS = {
    **{unit: UNITS[unit] for unit in
       "lbs lb oz hrs hr mins min secs sec tsp tbsp Tsp Tbsp ft yds yd mi gal qts qt pts pt yrs yr wks "
       "wk".split()},
    "doz": "dozen", "in": "inch",
}  # fmt: skip
#: Units that others are written like -> the other's name, and what stands behind it.
OTHER_UNITS = {
    "pts?": ("pint", r"(?: of)?(?: (?!of)[a-z-]+)? (?:ale|beer|blood|blueberries|broth|buttermilk|cider|"
             r"cream|half-and-half|juice|lager|milk|oil|raspberries|soup|stock|stout|strawberries|vinegar|"
             r"water|wine|yogh?urt)\b"),
    "bps": ("bit per second", r"(?: (?!of)[a-z]+)? (?:connections?|data|lines?|links?|modems?|ports?|serial|"
            r"streams?)\b"),
    "ppm": ("page per minute", r" (?:(?:color|colour|inkjet|laser) )?(?:copiers?|printers?|scanners?)\b"),
}  # fmt: skip


class Currency(NamedTuple):
    """Names of one and of many, of the currency and of its hundredth part; no part: it is not named."""

    one: str
    many: str
    coin: str = ""
    coins: str = ""


def _dollar(country: str) -> Currency:
    return Currency(f"{country}dollar", f"{country}dollars", "cent", "cents")


#: Signs and codes of currencies, before or after the number.
CURRENCIES = {
    "$": _dollar(""), "US$": _dollar("U S "), "USD": _dollar("U S "), "C$": _dollar("Canadian "),
    "CA$": _dollar("Canadian "), "CAD": _dollar("Canadian "), "A$": _dollar("Australian "),
    "AU$": _dollar("Australian "), "AUD": _dollar("Australian "), "NZ$": _dollar("New Zealand "),
    "NZD": _dollar("New Zealand "), "HK$": _dollar("Hong Kong "), "HKD": _dollar("Hong Kong "),
    "S$": _dollar("Singapore "), "SGD": _dollar("Singapore "),
    "€": Currency("euro", "euros", "cent", "cents"), "EUR": Currency("euro", "euros", "cent", "cents"),
    "£": Currency("pound", "pounds", "penny", "pence"), "GBP": Currency("pound", "pounds", "penny", "pence"),
    "CHF": Currency("Swiss franc", "Swiss francs", "centime", "centimes"),
    "¥": Currency("yen", "yen"), "JPY": Currency("yen", "yen"),
    "CNY": Currency("yuan", "yuan"), "RMB": Currency("yuan", "yuan"),
    "₹": Currency("rupee", "rupees", "paisa", "paise"), "INR": Currency("rupee", "rupees", "paisa", "paise"),
    "₩": Currency("won", "won"), "KRW": Currency("won", "won"),
    "₽": Currency("ruble", "rubles", "kopeck", "kopecks"), "RUB": Currency("ruble", "rubles"),
    "₺": Currency("lira", "lira"), "₪": Currency("shekel", "shekels"), "ILS": Currency("shekel", "shekels"),
    "฿": Currency("baht", "baht"), "THB": Currency("baht", "baht"), "₫": Currency("dong", "dong"),
    "₱": Currency("peso", "pesos"), "MXN": Currency("Mexican peso", "Mexican pesos"),
    "₦": Currency("naira", "naira"), "₴": Currency("hryvnia", "hryvnias"),
    "R$": Currency("Brazilian real", "Brazilian reals"), "BRL": Currency("Brazilian real", "Brazilian reals"),
    "₿": Currency("bitcoin", "bitcoins"), "BTC": Currency("bitcoin", "bitcoins"),
    "SEK": Currency("Swedish krona", "Swedish kronor"), "NOK": Currency("Norwegian krone",
                                                                        "Norwegian kroner"),
    "DKK": Currency("Danish krone", "Danish kroner"), "zł": Currency("zloty", "zlotys"),
    "PLN": Currency("zloty", "zlotys"), "CZK": Currency("Czech koruna", "Czech korunas"),
    "HUF": Currency("forint", "forints"), "ZAR": Currency("rand", "rand"),
    "AED": Currency("dirham", "dirhams"),
}  # fmt: skip
SIZES = {
    "million": "million", "billion": "billion", "trillion": "trillion", "k": "thousand", "m": "million",
    "mn": "million", "b": "billion", "bn": "billion", "t": "trillion", "tn": "trillion",
}  # fmt: skip
#: What millions and thousands are counted of.
COUNTED = (
    "copies|users|people|views|viewers|followers|subscribers|customers|jobs|homes|votes|visitors|downloads|"
    "children|tons|tonnes|dollars|pounds|euros|years|times"
)
ABBREVIATIONS = {
    "e.g.": "for example", "i.e.": "that is", "etc.": "et cetera", "vs.": "versus",
    "approx.": "approximately",
    "dept.": "department", "a.m.": "AM", "p.m.": "PM",
    "ph.d.": "p h d", "w/o": "without", "agg.": "aggregate",
}  # fmt: skip
#: Before a name; in capitals, since "gen." or "sen." may end a sentence.
TITLES = {
    "Prof": "Professor", "Gen": "General", "Sgt": "Sergeant", "Capt": "Captain", "Gov": "Governor",
    "Sen": "Senator", "Rev": "Reverend", "Lt": "Lieutenant", "Ft": "Fort", "Pres": "President",
    "Col": "Colonel", "Maj": "Major", "Cpl": "Corporal", "Adm": "Admiral", "Cmdr": "Commander",
    "Rep": "Representative", "Hon": "Honorable", "Det": "Detective", "Insp": "Inspector",
    "Supt": "Superintendent", "Messrs": "Messieurs",
}  # fmt: skip
MONTHS = {
    "Jan": "January", "Feb": "February", "Mar": "March", "Apr": "April", "Jun": "June", "Jul": "July",
    "Aug": "August", "Sep": "September", "Sept": "September", "Oct": "October", "Nov": "November",
    "Dec": "December",
}  # fmt: skip
MONTH_NAMES = "January February March April May June July August September October November December".split()
DAYS = {
    "Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday",
    "Thur": "Thursday", "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday",
}  # fmt: skip
ZONES = "EST|EDT|CST|CDT|MST|MDT|PST|PDT|AKST|HST|GMT|UTC|BST|CET|CEST|EET|EEST|MSK|IST|SGT|JST|KST|AEST|AEDT"
#: These are words or other abbreviations too, and zones only beside a time.
ZONES_BESIDE_TIMES = "WET|ET|CT|MT|PT|MET|EAT|WAT|CAT|SAST|NZST|NZDT|AWST|ACST|HKT|PKT"
ROADS = {
    "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Ln": "Lane", "Hwy": "Highway", "Pkwy": "Parkway",
    "Sq": "Square",
}  # fmt: skip
#: After the number and the name of a house's road only: "Dr." is a doctor too.
NUMBERED_ROADS = {**ROADS, "St": "Street", "Dr": "Drive", "Ct": "Court", "Pl": "Place", "Ter": "Terrace"}
COMPASS = {
    "N": "North", "S": "South", "E": "East", "W": "West", "NE": "Northeast", "NW": "Northwest",
    "SE": "Southeast", "SW": "Southwest",
}  # fmt: skip
#: After a town and a comma; those of STATES_WITH_CODE are other words too, and need the ZIP code.
STATES = {
    "CA": "California", "NY": "New York", "TX": "Texas", "FL": "Florida", "IL": "Illinois", "GA": "Georgia",
    "WA": "Washington", "NJ": "New Jersey", "VA": "Virginia", "NC": "North Carolina", "MI": "Michigan",
    "AZ": "Arizona", "TN": "Tennessee", "MO": "Missouri", "WI": "Wisconsin", "MN": "Minnesota",
    "SC": "South Carolina", "KY": "Kentucky", "CT": "Connecticut", "UT": "Utah", "NV": "Nevada",
    "AR": "Arkansas", "KS": "Kansas", "NM": "New Mexico", "NE": "Nebraska", "WV": "West Virginia",
    "NH": "New Hampshire", "RI": "Rhode Island", "MT": "Montana", "SD": "South Dakota",
    "ND": "North Dakota", "AK": "Alaska", "VT": "Vermont", "WY": "Wyoming", "IA": "Iowa", "DC": "D C",
}  # fmt: skip
STATES_WITH_CODE = {
    "OK": "Oklahoma", "OR": "Oregon", "IN": "Indiana", "ME": "Maine", "HI": "Hawaii", "OH": "Ohio",
    "MD": "Maryland", "MA": "Massachusetts", "PA": "Pennsylvania", "LA": "Louisiana", "ID": "Idaho",
    "AL": "Alabama", "DE": "Delaware", "CO": "Colorado", "MS": "Mississippi",
}  # fmt: skip
BEFORE_NUMBERS = {
    "p": "page", "pp": "pages", "fig": "figure", "figs": "figures", "vol": "volume", "vols": "volumes",
    "ch": "chapter", "sec": "section", "ext": "extension", "apt": "apartment", "no": "number",
    "nos": "numbers", "hwy": "highway", "rte": "route", "rm": "room", "ste": "suite", "eq": "equation",
    "pt": "part", "ep": "episode",
}  # fmt: skip
_POINTING = r"[(\[]|\b(?:the|this|my|your|his|our|their|see|in|of|at|from|under|with|by|per|on) "
#: Those that are words too in small letters -> what stands before them where they are none.
BEFORE_SMALL = {
    "sec": rf"{_POINTING}|\b(?:and|or) |(?:[0-9]|\b[IVXC]+), ",
    "no": rf"{_POINTING}|(?<!s )\ba |[0-9][a-z]?,? (?:and|or|to) |\b(?:house|room|flight|phone|telephone|"
    "model|order|part|serial|account|invoice|case|page|item|lot|bus|train|track|platform|registration|batch|"
    r"ticket|question|chapter|volume|issue|symphony|concerto|sonata|ref\.?|tel\.?) ",
}
RULERS = (
    "Albert|Alexander|Alfonso|Benedict|Boniface|Carl|Catherine|Charles|Christian|Clement|Constantine|Darius|"
    "Edmund|Edward|Elizabeth|Emmanuel|Ferdinand|Francis|Frederick|George|Gregory|Gustav|Haakon|Harald|Harold|"
    "Henry|Innocent|Isabella|Ivan|James|John|Julius|Leo|Leopold|Louis|Margaret|Mary|Mehmed|Napoleon|Nicholas|"
    "Otto|Paul|Peter|Philip|Pius|Ptolemy|Ramesses|Richard|Robert|Sixtus|Stephen|Suleiman|Theodore|Umberto|"
    "Urban|Victor|Wilhelm|William|Xerxes"
)
RULERS_TITLES = "King|Queen|Pope|Emperor|Empress|Tsar|Tsarina|Czar|Kaiser|Sultan|Prince|Saint"
#: Their fifth or tenth is known without a title.
FIFTHS = (
    "Alfonso|Boniface|Charles|Clement|Constantine|Edward|Ferdinand|Frederick|George|Gregory|Gustav|Haakon|"
    "Harald|Henry|Innocent|James|Leo|Louis|Mehmed|Philip|Pius|Ptolemy|Sixtus"
)
TENTHS = "Alfonso|Benedict|Charles|Clement|Gregory|Innocent|Leo|Louis|Pius|Ptolemy|Ramesses"
#: Before a Roman numeral; the kinds come before a noun.
KINDS = "Phase|Type|Class|Stage|Title|Level|Schedule|Division|Tier|Category"
NUMBERED = (
    "Chapter|Part|Act|Volume|Book|Section|World War|Super Bowl|Article|Episode|Season|Scene|Table|Figure|"
    "Appendix|" + KINDS
)
#: Verbs after the pronoun "I", and adverbs between; those in -ed and -ly are left out.
AFTER_PRONOUN = (
    "am|was|have|had|do|did|don't|didn't|can|can't|could|will|won't|would|should|may|might|must|shall|never|"
    "always|also|still|just|only|once|often|ever|see|saw|like|love|hate|take|took|get|got|go|went|know|knew|"
    "think|thought|want|need|make|made|find|found|give|gave|choose|chose|buy|bought|mean|meant|meet|met|read|"
    "write|wrote|teach|taught|play|use|see|say|said|tell|told|feel|felt|hear|heard|keep|kept|lose|lost|prefer|"
    "put|run|ran|sell|sold|send|sent|speak|spoke|watch|win|won|work|remember|forget|forgot|grew|began"
)
#: Read letter by letter: the lexicon holds them as names.
LETTERED = "NGO|ETA|SEO|EV|ROI"
#: Ending of a file's name -> how it is said; others letter by letter.
FILE_ENDINGS = {
    **dict.fromkeys(
        "pdf txt xls xlsx ppt pptx csv exe rar gz png svg bmp mp3 mp4 mpg avi mov mkv html htm css js ts jsx "
        "tsx xml md py ipynb rb rs cpp hpp php sql sh cfg iso dmg apk dll psd 7z".split()
    ),
    **{word: word for word in
       "zip doc log tar gif bat java tiff ini ogg conf yaml yml toml safetensors".split()},
    "docx": "doc X", "json": "jason", "jpeg": "J peg", "jpg": "J P G", "wav": "wave", "flac": "flack",
    "webp": "web P", "epub": "E pub", "mpeg": "M peg", "onnx": "onyx",
}  # fmt: skip
#: Formulas without digits.
FORMULAS = "NaCl|NaOH|NaF|HCl|HBr|KCl|KBr|KOH|CuO|ZnO|FeO|MgO|CaO|LiCl|AgCl"
#: Symbols of chemical elements that common formulas hold.
ELEMENTS = "Al|Ag|Ba|Br|Ca|Cl|Cu|Fe|Hg|Li|Mg|Mn|Na|Ni|Pb|Si|Ti|Zn|[BCFHIKNOPSU]"
