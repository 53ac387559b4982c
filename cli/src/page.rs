//! Text for a terminal: lines and tables, with colours where a terminal wants them.
//!
//! Names come from tenants and from nodes. Every piece of text is made harmless as it is put on the page, and
//! colours are added behind that, so that nobody else can move the cursor, colour a line or fake one.

use std::fmt::Write;

/// How a piece of text is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Ordinary.
    #[default]
    Plain,
    /// A heading.
    Strong,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
    /// Less important.
    Dim,
}

/// A piece of text and how it is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span(Tone, String);

/// Whether tones become colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// They do.
    Colour,
    /// They do not: a file, a pipe, `NO_COLOR`, or a terminal that cannot.
    Plain,
}

/// Lines of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page(Vec<Vec<Span>>);

/// Ordinary text.
pub fn plain(text: impl Into<String>) -> Span {
    Span(Tone::Plain, text.into())
}

/// Text of that tone.
pub fn toned(tone: Tone, text: impl Into<String>) -> Span {
    Span(tone, text.into())
}

impl Tone {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "1",
            Self::Good => "32",
            Self::Warn => "33",
            Self::Bad => "31",
            Self::Dim => "2",
        }
    }
}

impl Style {
    /// Colours only on a terminal that can show them, and never where `NO_COLOR` is set to anything.
    pub fn of(is_terminal: bool, no_color: bool, term: Option<&str>) -> Self {
        if is_terminal && !no_color && term != Some("dumb") { Self::Colour } else { Self::Plain }
    }
}

impl Page {
    /// A line of ordinary text.
    pub fn say(&mut self, text: impl Into<String>) {
        self.0.push(vec![plain(text)]);
    }

    /// A line of one tone.
    pub fn tone(&mut self, tone: Tone, text: impl Into<String>) {
        self.0.push(vec![toned(tone, text)]);
    }

    /// A line of several pieces.
    pub fn line(&mut self, spans: Vec<Span>) {
        self.0.push(spans);
    }

    /// An empty line, unless the page is empty.
    pub fn gap(&mut self) {
        if !self.0.is_empty() {
            self.0.push(Vec::new());
        }
    }

    /// Rows under headings, each column as wide as its widest cell.
    pub fn table(&mut self, indent: usize, head: &[&str], rows: Vec<Vec<Span>>) {
        let heads = head.iter().map(|text| toned(Tone::Strong, *text)).collect();
        let all: Vec<Vec<Span>> = std::iter::once(heads).chain(rows).collect();
        let width = |column: usize| {
            all.iter()
                .filter_map(|row| row.get(column))
                .map(|Span(_, text)| text.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        for row in all {
            let mut line = vec![plain(" ".repeat(indent))];
            let last = row.len().saturating_sub(1);
            for (column, span) in row.into_iter().enumerate() {
                let missing = widths.get(column).copied().unwrap_or(0).saturating_sub(span.1.chars().count());
                line.push(span);
                if column < last {
                    line.push(plain(" ".repeat(missing + 2)));
                }
            }
            self.0.push(line);
        }
    }

    /// The text, each line harmless and without blanks at its end.
    pub fn render(&self, style: Style) -> String {
        let mut out = String::new();
        for line in &self.0 {
            let mut text = String::new();
            for Span(tone, piece) in line {
                let piece = printable(piece);
                if style == Style::Plain || tone.code().is_empty() || piece.is_empty() {
                    text.push_str(&piece);
                } else {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "\u{1b}[{}m{piece}\u{1b}[0m", tone.code());
                }
            }
            out.push_str(text.trim_end());
            out.push('\n');
        }
        out
    }
}

/// Control characters could drive the terminal, and the invisible marks that turn the direction of text or hide
/// in it could make one name look like another.
pub fn printable(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|c| if harmful(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_escapes_and_newlines_of_others_are_not_passed_on() {
        assert_eq!(printable("a\u{1b}[31mb\nc\u{202e}d"), "a\u{fffd}[31mb\u{fffd}c\u{fffd}d");
        let mut page = Page::default();
        page.say("evil\u{1b}[2J");
        page.table(2, &["NAME"], vec![vec![toned(Tone::Bad, "x\u{7}\ny")]]);
        let text = page.render(Style::Plain);
        assert_eq!(text, "evil\u{fffd}[2J\n  NAME\n  x\u{fffd}\u{fffd}y\n");
    }

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        assert_eq!(Style::of(true, false, Some("xterm")), Style::Colour);
        for (terminal, no_color, term) in
            [(false, false, Some("xterm")), (true, true, Some("xterm")), (true, false, Some("dumb"))]
        {
            assert_eq!(Style::of(terminal, no_color, term), Style::Plain);
        }
        let mut page = Page::default();
        page.line(vec![toned(Tone::Bad, "no"), plain(" room")]);
        assert_eq!(page.render(Style::Colour), "\u{1b}[31mno\u{1b}[0m room\n");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut page = Page::default();
        let row = |a: &str, b: &str| vec![plain(a), plain(b)];
        page.table(0, &["NODE", "GPUS"], vec![row("gpu-node-1", "8"), row("n", "")]);
        assert_eq!(page.render(Style::Plain), "NODE        GPUS\ngpu-node-1  8\nn\n");
    }
}
