"""Find words that the field has other words for: `python tools/check_style.py [PATH ...]`, exit status 1 if any."""

import io
import re
import sys
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What is checked without arguments.
PLACES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "examples", "sklearn_si")
SUFFIXES = {".py", ".md", ".rst", ".cff"}
# Built from other files.
SKIPPED = {"_build", "generated", "gallery"}
# "Law" is right in the names of theorems and of families of distributions.
MATHEMATICAL_LAWS = r"of large numbers|of total (?:probability|expectation|variance)|of the iterated logarithm"
# A pattern, and what to say instead.
WORDS = {
    rf"(?<!power\s)(?<!power-)\blaws?\b(?! (?:{MATHEMATICAL_LAWS}))": "distribution (of a time grid: spacing)",
    r"\bheld (?:rows|scores?|loss(?:es)?)\b": "held-out rows, validation rows",
    r"\bcarr(?:y|ies|ied|ying)\b": "map, move, push forward, transport; contain",
    # in backticks, and before the colon of a parameter, it is the name of an attribute
    r"(?<![`\w\"])gaps\b(?![`\"]| :)": "missing values",
    r"\btables? as people have them\b": "mixed-type table",
    r"\bmass(?:es)? of (?:the |its )?(?:levels|codes)\b": "pmf of the categorical cells",
    r"\b(?:gone|goes|went|go|going) on with\b": "fine-tuned for longer, extended, resumed",
    r"\bpromises to end with\b": "extrapolated final score",
    r"\bmean over the rows of all processes of what is a mean\b": "row-weighted mean across processes",
    r"\btwo levels that agree by accident\b": "guards against accidental agreement of two levels",
    r"\bwhole on a fresh machine\b": "works from a clean checkout",
    r"\bwhat a likelihood cannot see\b": "settings that do not affect the likelihood",
    r"\bfrom a given row on\b": "forecasting: sample from p(X1 given X0)",
    r"\bthe one number worth giving\b": "the only setting most users need",
}
_PATTERNS = {re.compile(r"\s+".join(pattern.split(" ")), re.IGNORECASE): say for pattern, say in WORDS.items()}


def findings(text):
    """The line, the words and what to say instead, for each place; a phrase may run over the end of a line."""
    found = [
        (text.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), say)
        for pattern, say in _PATTERNS.items()
        for match in pattern.finditer(text)
    ]
    return sorted(found)


def prose(path):
    """The text of a page, or the comments and strings of a program, on the lines where they stand."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    kept = list(re.sub(r"[^\n]", " ", text))
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if tokenize.tok_name[token.type] in ("COMMENT", "STRING", "FSTRING_MIDDLE"):
            start, stop = (starts[row - 1] + column for row, column in (token.start, token.end))
            kept[start:stop] = text[start:stop]
    return "".join(kept)


def files(places):
    """Files of text in the folders, and the files themselves."""
    for place in map(Path, places):
        inside = sorted(place.rglob("*")) if place.is_dir() else [place]
        for path in inside:
            if path.suffix in SUFFIXES and not SKIPPED & set(path.relative_to(place).parts):
                yield path


def main(places):
    """Print the findings; return how many there are."""
    count = 0
    for path in files(places or [ROOT / place for place in PLACES]):
        for line, words, say in findings(prose(path)):
            print(f"{path}:{line}: {words!r}: say {say}")
            count += 1
    return count


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
