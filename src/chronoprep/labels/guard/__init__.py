"""What is wrong with a model's answer, by name; and what can be put right without asking again.

Repaired by `clean`, since nothing is lost: white space, control characters, special tokens at the
edges, and a code fence, emphasis or quotes around the whole text. Everything else that a training
prompt must not have is a `Fault`: the answer is refused, and another draw may be better.

What a prompt may ask for in another way (its opening, its length, its language, markdown) is
judged only as far as the template's `Form` says so. Text in quotation marks is text inside the
image: its words are not judged.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from dataclasses import dataclass
from typing import Literal

from chronoprep.data import Completion, Form

FaultName = Literal[
    "empty",
    "repeated character",
    "loop",
    "special token",
    "cut",
    "refusal",
    "meta talk",
    "language",
    "markdown",
    "opening",
    "length",
]

# `<|im_end|>`, `<|image_pad|>`, and the sentencepiece-style ones that other families use.
_SPECIAL = re.compile(
    r"<\|[^<>|]{1,60}\|>"
    r"|</?(?:s|pad|unk|bos|eos|image|video|img|think|answer|tool_call|ref|box|quad|end_of_turn|start_of_turn)>"
    r"|\[/?(?:INST|THINK)\]|◁/?\w{1,20}▷|<</?SYS>>|<0x[0-9A-F]{2}>"
)
# What is left of one that was cut in two.
_BROKEN_SPECIAL = re.compile(r"<\|\w{2,}|\b\w{2,}\|>")
_ROLE = re.compile(
    r"(?:\A|\n)\s*(?:assistant|human|system|user)\s*(?::|\n)"
    r"|### ?(?:assistant|human|input|instruction|response|system|user)\s*:",
    re.IGNORECASE,
)
_FENCE = re.compile(r"\A```(?:[\w+-]*\n)?((?:(?!```).)*?)\n?```\Z", re.DOTALL)
_EMPHASIS = re.compile(r"\A(\*{1,3}|_{2})(?=\S)([^*\n]+?)(?<=\S)\1\Z")
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`"}

_QUOTED = re.compile(
    r'"[^"\n]{1,300}"|“[^”\n]{1,300}”|«[^»\n]{1,300}»|「[^」\n]{1,300}」|『[^』\n]{1,300}』'
    r"|(?<!\w)'[^\n]{1,300}?'(?!\w)|‘[^\n]{1,300}?’(?!\w)|`[^`\n]{1,300}`"
)

# Ten of a kind: "Aaaaah" on a sign passes, the well-known wall of "!" does not.
_ONE_CHARACTER = re.compile(r"(\S)(?:\s*\1){9,}")
_SYLLABLES = re.compile(r"(\S{2,20}?)\1{5,}")
_LIST_NUMBER = re.compile(r"(?<!\S)\d{1,3}[.)](?=\s)")
# Whisper's bound for text that goes round in circles. Plain English of 100 words is near 1.8.
_MOST_COMPRESSION = 2.4

_REFUSAL = re.compile(
    r"\bI(?:'m| am) (?:so |very |truly )?(?:sorry|unable|not able|afraid|not allowed)\b"
    r"|\bI (?:can ?not|can't|won't|will not|could not|couldn't|do not|don't|must decline|refuse)\b"
    r"|\bI apologi[sz]e\b|\A\W*(?:sorry|(?:my )?apologies|unfortunately)\b[,.!]?"
    r"|\A\W*(?:cannot|can't|unable to)\b"
    r"|\b(?:as|I'm|I am|just) an? (?:AI|artificial|language model|assistant)\b"
    r"|\b(?:please )?(?:provide|upload|share|send|attach) (?:me )?(?:the|both|your|two|some)"
    r" (?:two |missing |source )?images?\b"
    r"|\bno images? (?:was|were|is|are|has|have)(?: been)? (?:provided|attached|uploaded)\b"
    r"|\A\W*no images? (?:is|are) visible\b"
    r"|\A\W*error\W*:|\A\W*it(?:'s| is) (?:not possible|impossible) to\b"
    r"|\A\W*the (?:edit|change|difference|instruction)s? (?:can ?not|can't|could not|couldn't) be\b"
    r"|\bthere (?:is|are) no images? (?:provided|attached|here|to)\b"
    r"|\bagainst (?:my|our) (?:guidelines|polic)|\bcontent polic",
    re.IGNORECASE,
)
_META = re.compile(
    # an answer that begins by talking about itself
    r"\A\W*(?:(?:here|below)(?:'s| is| are| you go)\b"
    r"|(?:sure|certainly|of course|absolutely|okay|ok|alright|great|got it|understood)"
    r"(?:[,.!:]|\s+(?:here|so|let)\b)"
    r"|as (?:requested|instructed)\b|thank(?:s| you) for\b|thinking process\b"
    r"|it (?:seems|appears|looks) (?:that|like)\b"
    r"|let(?: me|'s) (?:see|compare|look|start|think|analy[sz]e)"
    r"|(?:based on|looking at|comparing|after comparing|upon|by comparing|to turn|to transform)"
    r" (?:the |these |both |your )?(?:two |provided |given |first |comparison |images?|pictures?)"
    r"|the (?:edit|editing|requested|final|correct|most|main|only|key|primary|following)"
    r" (?:(?:prominent|notable|visible|significant|edit|editing) )?"
    r"(?:instruction|answer|prompt|change|difference)s? "
    r"(?:is|are|would be|between|that|from|to|for)\b"
    r"|(?:(?:the |an? |your |my |edit |editing |final |full |image |short )*"
    r"(?:instruction|caption|question|answer|output|response|prompt|description|result|explanation"
    r"|thought|reasoning|analysis|step \d+)\W*:))"
    # what is left of "no change" where it says more than that
    r"|\A\W*(?:there (?:is|are|was|were) )?no (?:\w+ )?(?:change|difference|edit)s?\b"
    r"(?: [^,.;:!]*\W*\Z| (?:is|are|was|were|can be|could be) )"
    r"|\A\W*(?:the|these|both) (?:two )?(?:images|pictures|photos) (?:are|look|appear|seem) "
    r"(?:\w+ )?(?:identical|alike|the same)\b"
    # the model in the first person
    r"|\bI (?:see|notice|think|believe|would|will|have|hope|can see|observe|am going|need to)\b"
    r"|\bI'(?:ll|ve|d)\b"
    # and after the answer
    r"|\blet me know (?:if|whether|how)\b|\bfeel free to (?:ask|adjust|modify|let)\b"
    r"|\bthis (?:instruction|prompt|caption|answer|description|response) (?:is|has)\b"
    r"|\b(?:this|the) (?:instruction|prompt|caption|answer|description|response) "
    r"(?:captures|describes|meets|contains|follows|is(?:\s*:| that\b| to (?!be\b|the\b)))"
    r"|\(?\b(?:word count|total words?)\b\W*\d+|\(\W*(?:about |approx\w*\W* )?\d+ words\W*\)"
    r"|\A\W*note\W*:|[(\n.!]\W{0,8}(?:note|(?:final )?(?:answer|instruction|output|response)"
    r"|explanation|justification|rationale|reason(?:ing)?)\W{0,2}:"
    r"|\{\w[\w -]{0,30}\}",  # a blank that was not filled in
    re.IGNORECASE,
)
_IMAGES = re.compile(
    r"\bimages? (?:1|2|one|two|A|B)\b|\b(?:source|target|edited) image\b"
    # not one that hangs there
    r"|\b(?:first|second|left|right) image\b(?! (?:above|behind|below|in|of|on|over) the (?:\w+ )?"
    r"(?:album|billboard|board|collage|desk|fridge|gallery|grid|magazine|page|poster|screen|shelf"
    r"|sofa|table|wall)\b)"
    r"|\A\W*(?:in )?the (?:before|after) (?:image|picture|photo|version)\b"
    r"|\b(?:both|two) images\b|\A\W*(?:the|these|this) images? (?:shows?|is|are|appears?|seems?)\b",
    re.IGNORECASE,
)
_MARKDOWN = re.compile(
    r"^\s{0,3}#{1,6}\s+\S"  # heading
    r"|^\s{0,8}[-*•+]\s+\S.*(?:\n\s*)+[-*•+]\s+\S|\A\s*[-*•+]\s+\S"  # bullets
    r"|^\s{0,8}\d{1,2}[.)]\s+\S.*(?:\n\s*)+\d{1,2}[.)]\s+\S|\A\s*1[.)]\s+\S"  # numbered
    r"|\*\*[^*\n]+\*\*|(?<!\w)__[^_\n]+__(?!\w)|(?<![\w*])\*\w[^*\n]*\w\*(?![\w*])"  # emphasis
    r"|```|^\s*\|?[ :]*-{3,}[ :]*\||^\s*(?:-{3,}|\*{3,}|_{3,})\s*$|^>\s+\S"  # fence, table, rule
    r"|!?\[[^\]\n]+\]\([^)\s]+\)|<(?:br|p|ul|li|strong|em|h[1-6]|div)\b[^<>]*>"  # link, HTML
    r"|</?[A-Za-z_]{2,20}>"  # a tag of whatever name
    r"|\A\{\s*\"",  # JSON
    re.MULTILINE,
)
_INLINE_CODE = re.compile(r"(?<!`)`[^`\n]+`(?!`)")


# Ways to say that nothing changed, in lower case; each word is followed by a space. An answer is
# made of nothing else, or it is an edit: "no change to the sky; add a boat".
_THESE = (
    "(?:(?:the|this|these|those|both|two|all|of|and|before|after|first|second|source|target|original"
    "|images?|pictures?|photos?|scenes?|frames?|everything|it|they|them) )"
)
_WHERE = rf"(?:(?:between|in|from|to|across) {_THESE}+|at all |here )*"
_NO_CHANGE = re.compile(
    "(?:(?:the |final )*(?:answer|caption|instruction|output) (?:is )?)?(?:(?:"
    "(?:there (?:is|are|was|were|s) |make )?no (?:(?:visible|noticeable|apparent|obvious|detectable"
    "|discernible|perceptible|significant|meaningful) )*(?:change|difference|edit|modification)s? "
    "(?:(?:is|are|was|were|has|have|been|to|be|can|could|needed|necessary|required|made|make|seen"
    f"|detected|found|observed|visible|noticeable|present|occurred) )*{_WHERE}"
    "|nothing (?:(?:is|was|has|been|needs|to|be|visibly) )*"
    f"(?:changed?|changes|differs|different|edit|edited|altered) {_WHERE}"
    f"|(?:keep|leave) {_THESE}+(?:exactly )?"
    "(?:as (?:(?:it|they) )?(?:is|are|was|were)|(?:the )?same|identical|unchanged) "
    "|(?:do not|don t) (?:change|edit|alter|modify) anything |change nothing |do nothing "
    f"|(?:{_THESE}+(?:is|are|was|were|looks?|appears?|seems?|remains?|stays?|have|has) "
    "(?:(?:been|to be|exactly|completely|entirely|visually) )*)?"
    f"(?:(?:the )?same|identical|unchanged|not changed) {_WHERE}"
    ")(?:(?:and|as|because|since|so) )?){1,3}"
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Small words that stand in nearly every sentence, and what most edits speak of.
_ENGLISH = _words(
    "the a an of to with and from is at it its for into that this on as by are his her him them "
    "their "
    "no not more less very over up off out one two all both between behind under left right while "
    "add change give keep make move place put remove replace swap turn blur close crop darken "
    "brighten lighten draw enlarge open paint rotate sharpen show zoom added changed removed "
    "replaced becomes stay stays instead like style sign background user wants"
)
_FOREIGN = _words(
    "der das und ein eine einen einem es mit auf dem den von vom zum zur ist nicht sich wird mach "
    "mache setz durch benutzer möchte "
    "le la les des un une dans du et avec sur est pour au aux mets par fond utilisateur "
    "souhaite veut "
    "el los las una con del por para pon quita fondo usuario quiere "
    "um uma com em da na nos das dos pelo remover fundo usuário "
    "il lo gli nel nella della di sul sulla sfondo utente vuole "
    "het een naar gebruiker wil "
    "och ett med på från är att som "
    "się jest oraz na "
    "bir ve için ile olarak "
    "dan yang dari dengan ke sebuah menjadi"
)
# Words that ask for an edit, and are neither English nor a name: each counts twice, for the
# shortest instruction is one of them and a noun.
_FOREIGN_EDITS = _words(
    "füge hinzu hinzufügen hinzugefügt entferne entfernen entfernt ersetze ersetzen ersetzt ändere "
    "ändern lösche löschen setze verwandle verwandeln tausche hintergrund "
    "ajoute ajouter ajoutez mettre mettez remplacer remplacez supprime supprimer supprimez enlève "
    "enlever enlevez retirer retirez éclaircis assombris changer changez rendre rendez "
    "transforme transformez "
    "añade añadir agrega agregar elimina eliminar reemplaza reemplazar sustituye sustituir quitar "
    "cambia cambiar poner borra borrar convierte convertir aclara oscurece haz "
    "adicione adicionar remova troque trocar mude mudar coloque colocar substitua substituir "
    "altere deixe faça acrescente "
    "aggiungi aggiungere rimuovi rimuovere sostituisci sostituire cambiare metti mettere togli "
    "togliere rendi trasforma trasformare "
    "voeg zet laat verwijder verwijderen vervang vervangen wijzig verander maak achtergrond "
    "lägg bort byt ändra ersätt tilføj fjern erstat legg endre gör gør bakgrund "
    "dodaj usuń zmień zamień přidej odstraň změň "
    "ekle kaldır değiştir tambahkan hapus ganti ubah jadikan "
    "adaugă elimină schimbă lisää poista vaihda hozzá"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an answer is refused.

    Attributes:
        name: What kind of fault it is.
        detail: What was seen, for people; may be empty.
    """

    name: FaultName
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.detail})" if self.detail else self.name


def clean(text: str) -> str:
    """Model text made safe for a prompt and a file.

    Special tokens go (again and again, since taking one out may join the halves of another), and
    so do control characters; white space collapses; a code fence, emphasis or a pair of quotes
    around the whole text goes.
    """
    return " ".join(_unwrapped(text).split())


def is_no_change(text: str) -> bool:
    """Whether an answer says "no change" and no more, in whatever words, case, punctuation, quotes
    or fences."""
    letters = unicodedata.normalize("NFKC", clean(text)).casefold()
    words = re.findall(r"[^\W_]+", letters)
    return _NO_CHANGE.fullmatch(" ".join([*words, ""])) is not None


def find_fault(answer: Completion, form: Form) -> Fault | None:
    """The first thing that is wrong with an answer, or None.

    "no change" is a good answer to stage 1, which the caller knows and hears first.
    """
    lines = _unwrapped(answer.text)  # as it will be used, but with its line breaks
    text = " ".join(lines.split())
    visible = "".join(c for c in text if unicodedata.category(c) != "Cf")
    if not visible.strip():
        # A model that thinks up to the limit leaves nothing: what helps is more tokens.
        return _cut(answer) if answer.truncated else Fault("empty")
    judged = _QUOTED.sub('""', visible)
    if run := _ONE_CHARACTER.search(judged):
        return Fault("repeated character", f"{run.group(1)!r} again and again")
    if len(set(visible)) == 1 and len(visible) > 1:
        return Fault("repeated character", f"nothing but {visible[0]!r}")
    if not any(c.isalnum() for c in visible):
        return Fault("empty", f"no word in {visible[:20]!r}")
    if looped := _loop(judged):
        return Fault("loop", looped)
    if leak := _leak(answer.text):
        return Fault("special token", leak)
    if answer.truncated:
        return _cut(answer)

    # Apostrophes as a keyboard writes them, and no words that stand in the image.
    spoken = _QUOTED.sub(' "" ', lines).replace("’", "'")
    if said := _REFUSAL.search(spoken):
        return Fault("refusal", said.group().strip())
    if said := _META.search(spoken) or (None if form.images else _IMAGES.search(spoken)):
        return Fault("meta talk", said.group().strip())
    if form.english and (seen := _not_english(spoken)):
        return Fault("language", seen)
    if not form.markdown and (mark := _MARKDOWN.search(spoken) or _INLINE_CODE.search(lines)):
        return Fault("markdown", repr(mark.group().strip()[:40]))
    if form.begins and not text.casefold().startswith(form.begins.casefold()):
        return Fault("opening", f"not {form.begins!r} but {text[: len(form.begins)]!r}")
    if form.words:
        fewest, most = form.words
        # Models count badly, and a label that is somewhat long or short trains as well. Off by
        # more than half, it leaves out what stays, or rambles.
        count = len(text.split())
        if not fewest / 2 <= count <= most * 1.5:
            return Fault("length", f"{count} words instead of {fewest} to {most}")
    return None


def _cut(answer: Completion) -> Fault:
    """An answer without an end. The limit is not all that cuts: a server may break off as well."""
    after = f"after {answer.tokens or 'some'} new tokens"
    return Fault("cut", f"it broke off {after}: raise --max-new-tokens if that is the limit")


def _unwrapped(text: str) -> str:
    """`clean`, with the line breaks inside the text still there."""
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs"))
    while (shorter := _SPECIAL.sub("", text)) != text:
        text = shorter
    text = text.strip()
    while (inner := _without_wrapper(text)) != text:
        text = inner
    return text


def _without_wrapper(text: str) -> str:
    """The text less one fence, emphasis or pair of quotes that encloses all of it."""
    for wrapper, group in ((_FENCE, 1), (_EMPHASIS, 2)):
        if match := wrapper.match(text):
            return match.group(group).strip()
    # Only a pair that encloses everything: `"Hi" becomes "Bye"` keeps its quotes.
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        inner = text[1:-1]
        if text[0] not in inner and text[-1] not in inner:
            return inner.strip()
    return text


def _leak(raw: str) -> str | None:
    """A special token, or a turn of the chat, inside the answer. At its edges it is harmless: an
    engine that shows the end token."""
    text = raw.strip()
    while edge := re.match(_SPECIAL.pattern, text):
        text = text[edge.end() :].strip()
    while edge := re.search(rf"(?:{_SPECIAL.pattern})\Z", text):
        text = text[: edge.start()].strip()
    for pattern in (_SPECIAL, _BROKEN_SPECIAL):
        if found := pattern.search(text):
            return found.group()
    if role := _ROLE.search(text):
        return f"a turn of the chat: {role.group().strip()!r}"
    return "a broken character" if "\ufffd" in text else None


def _loop(text: str) -> str | None:
    """What a text says over and over."""
    words = _LIST_NUMBER.sub(" ", text).casefold().split()
    words = [word.strip(".,;:!?") for word in words]
    for length in range(1, len(words) // 2 + 1):
        if length > 2 and len(words) % length == 0 and words[length:] == words[:-length]:
            return f"all of it is {' '.join(words[:length])[:60]!r} again"
        # One word may stand four times in a row on purpose; eight words twice may not.
        needed = 5 if length == 1 else 4 if length < 4 else 3 if length < 8 else 2
        same = 0
        for i in range(length, len(words)):
            same = same + 1 if words[i] == words[i - length] else 0
            if same >= length * (needed - 1):
                return repr(" ".join(words[i + 1 - length : i + 1])[:60])
    if syllables := _SYLLABLES.search(text):
        return repr(syllables.group(1))
    data = text.encode("utf-8", "replace")
    if len(data) > 200 and len(data) / len(zlib.compress(data, 9)) > _MOST_COMPRESSION:
        return "the same words in turn"
    return None


def _not_english(text: str) -> str | None:
    """Another script, or the small words of another language that is written in Latin letters."""
    letters = [c for c in text if c.isalpha()]
    other = [c for c in letters if not unicodedata.name(c, "").startswith(("LATIN", "FULLWIDTH L"))]
    if len(other) > 1:
        return "".join(other[:20])
    words = re.findall(r"[^\W\d_]+", text.casefold())
    english = sum(word in _ENGLISH for word in words)
    edits = [word for word in words if word in _FOREIGN_EDITS]
    foreign = [word for word in words if word in _FOREIGN or word in _FOREIGN_EDITS]
    if len(foreign) + len(edits) > english:
        return ", ".join(dict.fromkeys(foreign[:5]))
    accented = [word for word in words if not word.isascii()]
    if len(accented) > max(1, english, 0.2 * len(words)):
        return ", ".join(accented[:5])
    return None
