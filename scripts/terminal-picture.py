#!/usr/bin/env python3
"""Runs a command in a terminal of its own and draws what it shows in the end as an SVG.

    pip install pyte
    scripts/terminal-picture.py docs/images/quickstart.svg -- target/release/orchestrator run examples/quickstart/pipeline.yaml

What is drawn is what the command wrote, nothing else. Exits with the command's own code.
"""

import html
import os
import pty
import re
import sys

import pyte

COLUMNS, LINES = 112, 200
WIDTH, HEIGHT, PAD = 8.4, 18, 14
COLOURS = {
    "default": "#d8dee9", "black": "#8b95a5", "red": "#e06c75", "green": "#98c379", "brown": "#e5c07b",
    "yellow": "#e5c07b", "blue": "#61afef", "magenta": "#c678dd", "cyan": "#56b6c2", "white": "#eceff4",
}


def record(command):
    """The command's exit code and the screen that it leaves."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(LINES))
        os.environ.pop("CI", None)
        os.environ.pop("NO_COLOR", None)
        os.execvp(command[0], command)
    import fcntl
    import struct
    import termios
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        if not piece:
            break
        # pyte knows no dim; it is drawn as the terminal's grey.
        stream.feed(piece.replace(b"\x1b[2m", b"\x1b[30m"))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), screen


def spans(row):
    """Words of one style: (column, text, colour, bold)."""
    found, start, text, style = [], 0, "", None
    for column in range(COLUMNS):
        cell = row[column]
        now = (COLOURS.get(cell.fg, COLOURS["default"]), cell.bold)
        if now != style and text:
            found.append((start, text, style))
            text = ""
        if not text:
            start, style = column, now
        text += cell.data
    found.append((start, text, style))
    # Word by word, each at its own place: what becomes of blanks inside of text differs between browsers.
    return [
        (at + word.start(), word.group(), *style) for at, text, style in found for word in re.finditer(r"\S+", text)
    ]


def draw(screen, title):
    rows = [spans(screen.buffer[line]) for line in range(LINES)]
    while rows and not rows[-1]:
        rows.pop()
    width, height = COLUMNS * WIDTH + 2 * PAD, (len(rows) + 2) * HEIGHT + 2 * PAD
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" role="img"><title>{html.escape(title)}</title>',
        f'<rect width="100%" height="100%" rx="8" fill="#20242c"/>',
        '<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="14">',
        f'<text x="{PAD}" y="{PAD + HEIGHT}" fill="#98c379">$ <tspan fill="#eceff4">{html.escape(title)}</tspan></text>',
    ]
    for line, row in enumerate(rows, start=2):
        for column, text, colour, bold in row:
            weight = ' font-weight="bold"' if bold else ""
            x, y = PAD + column * WIDTH, PAD + (line + 1) * HEIGHT
            length = len(text) * WIDTH
            out.append(
                f'<text x="{x:.1f}" y="{y}" fill="{colour}"{weight} textLength="{length:.1f}">{html.escape(text)}</text>'
            )
    return "\n".join(out) + "\n</g></svg>\n"


def main():
    target, command = sys.argv[1], sys.argv[sys.argv.index("--") + 1:]
    code, screen = record(command)
    title = "orchestrator " + " ".join(command[1:])
    with open(target, "w", encoding="utf-8") as file:
        file.write(draw(screen, title))
    sys.exit(code)


main()
